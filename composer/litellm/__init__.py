"""Read the configuration of a LiteLLM proxy as an expert file."""
