"""Models: networks that are ready to be trained, each with the settings that train it well."""

from faltung.models.recipes import RECIPES, Recipe, find_recipe

__all__ = ["RECIPES", "Recipe", "find_recipe"]
