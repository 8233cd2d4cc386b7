"""Print what a shell needs to complete the words of `focalnet` with the Tab key.

    focalnet completion bash

With `eval "$(focalnet completion bash)"` in ~/.bashrc, or the same of zsh in ~/.zshrc, each new shell has it.

It completes subcommands, their flags, and the names of the configs that this package carries; elsewhere, files.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from focalnet_backbone.command import subcommands
from focalnet_backbone.configs import list_configs
from focalnet_backbone.system.command_line import program

# zsh takes over bash's completions.
OPENING = {"bash": "", "zsh": "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n"}
SCRIPT = """_focalnet() {{
    local words="{subcommands}"
    [ "$COMP_CWORD" = 1 ] || case ${{COMP_WORDS[1]}} in
{cases}
    *) words= ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o bashdefault -o default -F _focalnet focalnet
"""


def words(name: str) -> list[str]:
    """What may follow a subcommand: its flags, read from its source, as an import would take seconds, and configs."""
    if name == "completion":
        return sorted(OPENING)
    source = Path(__file__).with_name(f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
    if "command.openmmlab import make_parser" in source:
        source += Path(__file__).with_name("openmmlab.py").read_text(encoding="utf-8")
    flags = [*dict.fromkeys(re.findall(r'add_argument\(\s*"(--[\w-]+)"', source)), "--help"]
    return flags + (list_configs() if '"config"' in source else [])


@program("focalnet completion")
def main() -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shell", choices=sorted(OPENING), metavar="SHELL", help="bash or zsh")
    shell = parser.parse_args().shell
    cases = "\n".join(f'    {name}) words="{" ".join(words(name))}" ;;' for name in subcommands())
    print(OPENING[shell] + SCRIPT.format(subcommands=" ".join(subcommands()), cases=cases), end="")
    return 0
