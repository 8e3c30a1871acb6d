"""Train a retriever for a domain: a LoRA adapter on a base encoder, from queries and passages."""
