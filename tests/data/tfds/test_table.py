"""The tables of docs/data.md are those of the registry, and the command shows them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nvembed_jax.data.tfds.__main__ import main
from nvembed_jax.data.tfds.registry import all_sets
from nvembed_jax.data.tfds.table import CHECKED, NOT_DONE, markdown_tables

PAGE = Path(__file__).parents[3] / "docs" / "data.md"
PAPER = """
MSMARCO, HotpotQA, NQ, PAQ, StackExchange, NLI, SQuAD, ArguAna, BioASQ, FiQA, FEVER, HoVer, SciFact,
NFCorpus, MIRACL, Mr.TyDi, AmazonReviews, AmazonCounterfactual, Banking77, Emotion, IMDB,
MTOP domain/intent, ToxicConversations, TweetSentimentExtraction, AmazonPolarity,
MASSIVE scenario/intent, arXiv raw, bioRxiv raw, medRxiv raw, TwentyNewsgroups, Reddit,
StackExchange S2S/P2P, STS12, STS22, STS-B
"""  # section 5 of the paper


def test_page_shows_the_registry():
    assert PAGE.read_text("utf8").partition("<!-- tables -->\n")[2].strip() == markdown_tables()


def test_every_set_of_the_paper_is_done_or_not_done_with_a_reason():
    done = {public.paper for public in all_sets().values() if public.paper}
    assert done | set(NOT_DONE) == {name.strip() for name in PAPER.split(",")}
    assert not done & set(NOT_DONE)
    assert all(NOT_DONE.values())
    assert set(CHECKED) <= set(all_sets())


def test_every_set_stands_in_a_table():
    cells = re.findall(r"`([^`]*)`", markdown_tables())
    names = {cell for cell in cells if not cell.endswith("/")}
    for stem, languages in re.findall(r"`(\w+)/` ((?:`\w+` ?)+)", markdown_tables()):
        names |= {f"{stem}_{language}" for language in re.findall(r"`(\w+)`", languages)}
    assert set(all_sets()) <= names


def test_commands_list_and_tabulate(capsys):
    assert main(["list"]) == 0
    listed = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in listed] == list(all_sets())
    assert main(["table"]) == 0
    assert capsys.readouterr().out.strip() == markdown_tables()


def test_build_command_tells_of_failures(tmp_path, capsys):
    assert main(["build", "sqad", "--data-dir", str(tmp_path)]) == 1
    assert "error: no public set is called 'sqad'; did you mean 'squad'?" in capsys.readouterr().err
    assert main(["build", "emotion", "--data-dir", str(tmp_path)]) == 1
    assert "pass its folder as origin_dir" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_:
        main([])
    assert exit_.value.code == 2
