"""The ready profiles that come with the engine, and policies read with them at hand."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from recsys.guidance.policy.inheritance import resolve_profiles
from recsys.guidance.policy.policy import Policy, parse_policy
from recsys.guidance.policy.profiles import Profile, parse_profile


@cache
def ready_profiles() -> Mapping[str, Profile]:
    """Name -> profile, by name: every YAML file beside `recsys.guidance.policy.profiles`, read once per process."""
    folder = files("recsys.guidance.policy.profiles")
    found = [parse_profile(file.read_text("utf-8")) for file in folder.iterdir() if file.name.endswith(".yaml")]
    return {profile.name: profile for profile in sorted(found, key=lambda profile: profile.name)}


def read_policy(text: str) -> Policy:
    """A policy from JSON or YAML text, its profiles at hand. Raises PolicyError."""
    return resolve_profiles(parse_policy(text), ready_profiles())
