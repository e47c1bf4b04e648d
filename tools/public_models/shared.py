"""What the builders of public models share: the decorator that registers them."""

from pathlib import Path

PACKAGES = Path("packages")  # where packages are that this project does not need; __main__.py sets it
BUILDERS = {}  # (repository, model) -> a function: the clone's folder -> (model, example, settings of causality)


def public(repository, model):
    """Decorator: the function below builds this model of a repository from its clone, small."""

    def keep(build):
        if (repository, model) in BUILDERS:
            raise ValueError(f"{repository} {model} is built twice")
        BUILDERS[repository, model] = build
        return build

    return keep
