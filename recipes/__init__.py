"""The packaged recipes, as YAML files beside this one."""
