"""An independent, naive model of a registry's storage and of what gc must do: dicts and sets, clarity over speed."""
