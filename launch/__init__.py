"""The front door: the `albert` command. Nothing heavy is imported before a verb is known."""
