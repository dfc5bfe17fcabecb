"""Every posterior of the project between what is certified and what is attacked."""
