from keyassay.checks import PAGE_SECTIONS
from keyassay.output.pages import facts, index, page, pages, write
from sample_run import CHECKS


def test_a_page_has_the_facts_and_all_sections_in_order():
    text = page(CHECKS[1])
    places = [text.index(f"\n## {name}\n") for name in (*PAGE_SECTIONS, "Sources")]
    assert places == sorted(places)
    assert text.startswith("# rsa-near-primes: what rsa-near-primes finds\n")
    assert "| runs in | fast, standard, deep |" in text
    assert "- RFC 8017, section 3\n" in text
    assert dict(facts(CHECKS[0]))["runs in"] == "deep"


def test_paragraphs_stay_paragraphs():
    assert "that the same device made.\n\nThen tell the maker." in page(CHECKS[0]).replace(
        "that the\nsame", "that the same"
    )


def test_the_index_links_every_page():
    for one in CHECKS:
        assert f"[{one.id}]({one.id}.md)" in index()
        assert f"{one.id}.md" in pages()


def test_writing_removes_pages_of_checks_that_are_gone(tmp_path):
    (tmp_path / "rsa-gone.md").write_text("old")
    write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(pages())
