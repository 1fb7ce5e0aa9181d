"""A naive model, independent of the planner, of a registry's storage and of what gc must do: dicts and sets."""
