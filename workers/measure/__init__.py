"""Measuring: a chat model and adapters on it answer prompts, and the answers are judged."""
