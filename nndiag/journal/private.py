"""What of a user's surroundings may be written down, and what is taken out of texts first.

A run directory gets mailed around and uploaded. So of the environment only the names listed here
are kept, of the arguments only the names of options, and texts that are not ours pass `scrubbed`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# Variables that change how a training runs and whose values tell nothing about its owner.
HARMLESS = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_DEVICE_ORDER",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_VISIBLE_DEVICES",
    "KMP_AFFINITY",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MKL_NUM_THREADS",
    "NCCL_ALGO",
    "NCCL_DEBUG",
    "NCCL_IB_DISABLE",
    "NCCL_P2P_DISABLE",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "PYTHONHASHSEED",
    "PYTORCH_CUDA_ALLOC_CONF",
    "RANK",
    "TORCHDYNAMO_DISABLE",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING",
    "WORLD_SIZE",
)
MAX_FLAGS = 100
REMOVED = "[removed]"

_KEY_LIKE = r"(?:pass(?:word|wd|phrase)?|pwd|secret|token|credential|auth\w*|bearer|api_?-?key|key)"
_NAMED_KEY = re.compile(rf"[\w.-]*{_KEY_LIKE}[\w.-]*\Z", re.IGNORECASE)
_HARMLESS_VALUE = re.compile(r"[\w.,:+%-]{1,64}\Z", re.ASCII)
_FLAG = re.compile(r"(--[A-Za-z][\w.-]{0,59}|-[A-Za-z])")

# Bounded, and none within another: a text of any kind takes time in proportion to its length.
_SECRETS = tuple(
    re.compile(pattern, flags)
    for pattern, flags in (
        # the password in https://user:password@host
        (r"(?<=://)[^\s/@]{1,200}@", 0),
        # api_key=..., "token": "...", Authorization: Bearer ...
        (
            rf"(?<![A-Za-z]){_KEY_LIKE}[\"']?\s{{0,3}}[=:]\s{{0,3}}[\"']?"
            r"(?:(?:bearer|basic)\s{1,3})?[^\s\"',;&)]{1,500}",
            re.IGNORECASE,
        ),
        (r"(?<![A-Za-z])(?:bearer|basic)\s{1,3}[\w.~+/=-]{8,500}", re.IGNORECASE),
        # as their makers begin them: Hugging Face, OpenAI and others, GitHub, GitLab, AWS, Slack,
        # Google, npm, PyPI, a JSON web token
        (
            r"\b(?:hf_|sk-|sk_|pk_|rk_|gh[pousr]_|github_pat_|glpat-|AKIA|ASIA|xox[abeoprs]-|AIza"
            r"|ya29\.|npm_|pypi-|dckr_pat_|r8_|nvapi-|eyJ)[\w.-]{8,1000}",
            0,
        ),
        (r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]{0,10000}(?:-----END[^-]{0,50}-----)?", 0),
        # wandb's keys and whatever else is long and random
        (r"(?<![\w/.-])(?=[A-Za-z+_-]{0,64}[0-9])[A-Za-z0-9+_-]{32,500}={0,2}(?![\w/.-])", 0),
    )
)


def scrubbed(text: str) -> str:
    """`text` without what looks like a password or a key."""
    for secret in _SECRETS:
        text = secret.sub(REMOVED, text)
    return text


def harmless_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Of `environment` what may be kept: names on the list, with short plain values."""
    kept = {name: environment[name] for name in HARMLESS if name in environment}
    return {
        name: value
        for name, value in kept.items()
        if _HARMLESS_VALUE.match(value) and scrubbed(value) == value
    }


def option_names(arguments: Iterable[str]) -> list[str]:
    """The names of the options among `arguments`, each once; never a value.

    Of `-pSECRET` only `-p` is kept, and what follows `--password` is its value, whatever it is.
    """
    names: list[str] = []
    is_value = False
    for argument in arguments:
        if argument == "--":
            break
        name = _FLAG.match(argument)
        if is_value or name is None:
            is_value = False
            continue
        is_value = "=" not in argument and _NAMED_KEY.match(name[0]) is not None
        if scrubbed(name[0]) == name[0]:
            names.append(name[0])
    return list(dict.fromkeys(names))[:MAX_FLAGS]
