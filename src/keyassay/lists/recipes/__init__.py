"""Recipes: how broken generators made their keys, each from its published description, numbers in and numbers out."""
