"""The page at /, driven in a real Chromium against the real application."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from ggrank import Index, Llama
from ggrank.server import ServerSettings
from serving import EMBEDDER, LONG, RERANKER, running, service_of

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
QUERY = "Where do llamas live?"
PASSAGES = [
    "Paris is a city in France.",
    "Llamas and alpacas graze on the high plains of Peru and Bolivia.",
    "Llamas live.",
    "The condor lives in the mountains of South America.",
    "Where do I live? In a small house.",
]
MINUS = "\N{MINUS SIGN}"
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        because = f"no Chromium on PATH ({', '.join(BROWSERS)})"
        pytest.fail(because) if os.environ.get("CI") else pytest.skip(because)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS, timeout=LONG * 1000)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(service_of(EMBEDDER, RERANKER)) as client:
        yield str(client.base_url)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        yield context


@pytest.fixture
def page(context: BrowserContext, address: str) -> Page:
    return opened(context, address)


def opened(context: BrowserContext, address: str) -> Page:
    page = context.new_page()
    page.set_default_timeout(LONG * 1000)
    expect.set_options(timeout=LONG * 1000)
    page.goto(address)
    return page


def rank(page: Page, query: str = QUERY, passages: str = "\n".join(PASSAGES)) -> None:
    page.get_by_label("Query").fill(query)
    page.get_by_label("Passages").fill(passages)
    page.get_by_role("button", name="Rank").click()
    expect(page.get_by_role("status")).to_contain_text("ranked")


def column(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


def texts(page: Page, name: str) -> list[str]:
    return column(page, name).locator(".text").all_inner_texts()


# -- what it shows


@pytest.mark.parametrize(("name", "model"), [("Cosine", EMBEDDER), ("Cross-encoder", RERANKER)])
def test_typing_and_ranking_shows_the_order_and_the_scores_of_the_model(
    page: Page, name: str, model: str
) -> None:
    rank(page)
    with Llama.load(model, engine="llama.cpp", n_threads=1) as llama:
        expected = llama.rank(QUERY, PASSAGES)
    assert texts(page, name) == [ranked.document for ranked in expected]
    shown = column(page, name).locator(".score").all_inner_texts()
    assert [float(score.replace(MINUS, "-")) for score in shown] == pytest.approx(
        [ranked.score for ranked in expected],
        abs=0.03,  # what shares a micro-batch, and flash attention, move a logit by half of that
    )
    facts = column(page, name).inner_text()
    assert model in facts
    assert "llama.cpp on CPU" in facts
    assert re.search(rf"[\d,.]+ ms\D+{expected.n_tokens} tokens", facts)


def test_the_first_click_ranks_the_example_that_is_there(page: Page) -> None:
    page.get_by_role("button", name="Rank").click()
    expect(page.get_by_role("status")).to_contain_text("8 passages ranked")


def test_moves_are_told_in_words_and_drawn_between_the_lists(page: Page) -> None:
    rank(page)
    before, after = texts(page, "Cosine"), texts(page, "Cross-encoder")
    rows = column(page, "Cross-encoder").locator(".row").all()
    for place, (row, text) in enumerate(zip(rows, after, strict=True)):
        by = before.index(text) - place
        told = (
            "same place" if by == 0 else f"{'up' if by > 0 else 'down'} {abs(by)} from place {place + by + 1}"
        )
        expect(row.get_by_role("img", name=told, exact=True)).to_have_count(1)
    assert page.locator("#threads path").count() == len(PASSAGES)


def test_a_passage_under_the_pointer_or_the_focus_is_marked_in_both_lists(page: Page) -> None:
    rank(page)
    row = column(page, "Cosine").get_by_text("condor")
    row.hover()
    expect(column(page, "Cross-encoder").locator(".row.on .text")).to_have_text(PASSAGES[3])
    page.get_by_label("Query").hover()
    expect(page.locator(".on")).to_have_count(0)
    column(page, "Cosine").locator("summary").first.focus()
    expect(page.locator(".row.on")).to_have_count(2)


def test_a_passage_longer_than_the_model_reads_is_marked_in_the_list_of_that_model(page: Page) -> None:
    rank(page, passages="bread " * 300 + "\nLlamas sleep.")  # a token a word; the embedder reads 256
    expect(column(page, "Cosine").locator(".cut")).to_have_count(1)
    expect(column(page, "Cross-encoder").locator(".cut")).to_have_count(0)


def test_html_in_a_passage_is_shown_as_text_and_never_runs(page: Page) -> None:
    bad = [
        "<script>window.ran = 1</script>",
        "<img src=x onerror='window.ran = 1'>",
        "<b>bold</b> &amp; brave",
    ]
    rank(page, passages="\n".join(bad))
    assert sorted(texts(page, "Cosine")) == sorted(texts(page, "Cross-encoder")) == sorted(bad)
    column(page, "Cosine").locator(".row").first.click()
    assert page.evaluate("window.ran") is None
    assert page.locator("#results img, #results script, #results b").count() == 0


def test_five_hundred_passages_are_all_shown(page: Page) -> None:
    rank(page, passages="\n".join(f"Llama number {i} lives on farm {i * 7 % 13}." for i in range(500)))
    assert len(set(texts(page, "Cosine"))) == len(set(texts(page, "Cross-encoder"))) == 500


# -- what it reads

BLOCKS = "First line,\nsecond line.\n\n \nAnother one."


@pytest.mark.parametrize(
    ("pasted", "understood", "passages"),
    [
        ("one\n\ttwo  \nthree\n", "3 passages: one a line", ["one", "two", "three"]),
        (BLOCKS, "2 passages: blocks between blank lines", ["First line,\nsecond line.", "Another one."]),
        (" \n\n", "No passages yet", []),
    ],
)
def test_it_says_how_passages_are_understood(
    page: Page, pasted: str, understood: str, passages: list[str]
) -> None:
    page.get_by_label("Passages").fill(pasted)
    expect(page.locator("#count")).to_have_text(understood)
    assert page.evaluate("readPassages()") == passages


def test_with_an_index_a_search_shows_passages_with_their_places(
    context: BrowserContext, page: Page, tmp_path: Path
) -> None:
    expect(page.get_by_label("Search the index")).to_be_hidden()  # of a server without one
    (tmp_path / "notes.md").write_text("# Travel\n\nThe office pays for trains.\n\n# Bees\n\nBees dance.\n")
    with Index.open(tmp_path / "index") as index:
        index.update([tmp_path / "notes.md"])
    settings = ServerSettings(index=tmp_path / "index", api_key="open sesame")
    with running(service_of(EMBEDDER, settings=settings)) as client:
        page = opened(context, str(client.base_url))
        page.get_by_label("API key").fill("open sesame")
        page.keyboard.press("Enter")
        page.get_by_label("Search the index").fill("Who pays for the train?")
        page.get_by_role("button", name="Search").click()
        best = page.locator("#hits .row").first
        expect(best).to_contain_text(f"{tmp_path / 'notes.md'}:3")
        expect(best).to_contain_text("The office pays for trains.")
        expect(page.get_by_role("status")).to_contain_text("found.")


# -- who uses it


def test_the_keyboard_alone_is_enough(page: Page) -> None:
    def press_until(key: str, selector: str) -> None:
        for _ in range(20):
            page.keyboard.press(key)
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline == "solid", f"the focus on {selector} cannot be seen"
                return
        raise AssertionError(f"{selector} is not reached with {key}")

    press_until("Tab", "#query")
    page.keyboard.press("Control+a")
    page.keyboard.type(QUERY)
    press_until("Tab", "#passages")
    page.keyboard.press("Control+a")
    page.keyboard.insert_text("\n".join(PASSAGES))
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("status")).to_contain_text("5 passages ranked")
    press_until("Tab", "#rank")
    press_until("Tab", "#embedding summary")
    press_until("Tab", "#embedding .row:nth-child(3) summary")
    page.keyboard.press("Enter")
    expect(page.locator("#embedding details[open] .text")).to_have_text(texts(page, "Cosine")[2])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_that_wcag_asks_for(browser: Browser, address: str, scheme: str) -> None:
    with browser.new_context(color_scheme=scheme, reduced_motion="reduce") as context:  # type: ignore[arg-type]
        page = opened(context, address)
        rank(page)
        column(page, "Cosine").locator(".row").first.click()
        page.evaluate("showError('A message')")
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background))) < 150) == (scheme == "dark")
        weak = page.evaluate(CONTRASTS)
        assert weak == []


CONTRASTS = """() => {
    const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = (color) => numbers(color).slice(0, 3).map((v) => v / 255)
        .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = (element) => {
        const color = getComputedStyle(element).backgroundColor;
        return (numbers(color)[3] ?? 1) > 0 ? color : ground(element.parentElement);
    };
    const weak = [];
    for (const element of document.querySelectorAll("body *")) {
        const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!hasText && !element.matches("input, textarea")) continue;
        if (!element.checkVisibility() || element.matches("script, option")) continue;
        const [a, b] = [getComputedStyle(element).color, ground(element)].map(light).sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) weak.push(`${element.tagName}.${element.className} ${element.textContent} ${ratio}`);
    }
    return weak;
}"""


def test_a_phone_shows_everything_without_scrolling_sideways(browser: Browser, address: str) -> None:
    with browser.new_context(viewport=PHONE, has_touch=True) as context:  # type: ignore[arg-type]
        page = opened(context, address)

        def overhang() -> int:
            return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))

        assert overhang() == 0
        rank(page, passages="\n".join([*PASSAGES, "donaudampfschiff" * 40]))
        page.get_by_text("donau").last.click()
        assert overhang() == 0
        first, second = column(page, "Cosine").bounding_box(), column(page, "Cross-encoder").bounding_box()
        assert first is not None
        assert second is not None
        assert first["y"] + first["height"] <= second["y"], "the lists stand one above the other"
        page.evaluate("showError('x'.repeat(500))")
        assert overhang() == 0


def test_nothing_moves_for_those_who_asked_for_that(browser: Browser, address: str) -> None:
    with browser.new_context(reduced_motion="reduce") as context:
        page = opened(context, address)
        rank(page)
        durations = page.evaluate(
            "[...document.querySelectorAll('*')].map((each) => getComputedStyle(each).transitionDuration)"
        )
        assert set(durations) == {"0s"}


# -- what it must not do


def test_no_request_leaves_for_another_host_and_nothing_is_kept(
    context: BrowserContext, address: str
) -> None:
    requested: list[str] = []
    complaints: list[str] = []
    context.on("request", lambda request: requested.append(request.url))
    context.on("console", lambda message: complaints.append(message.text))
    page = opened(context, address)
    rank(page)
    assert {url.removeprefix(address).lstrip("/") for url in requested if not url.startswith("data:")} == {
        "",
        "page/icon.svg",
        "page/page.css",
        "page/page.js",
        "v1/models",
        "rerank",
    }
    assert complaints == []
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]


def test_the_page_is_sent_with_a_policy_that_allows_only_its_own_script(page: Page, address: str) -> None:
    headers = httpx.get(address, timeout=LONG).headers
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Content-Security-Policy"].startswith("default-src 'self'; ")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    added = "const made = document.createElement('script'); "
    with pytest.raises(Exception, match="TrustedScript"):
        page.evaluate(f"() => {{ {added} made.textContent = 'window.ran = 1'; document.body.append(made); }}")
    assert page.evaluate("window.ran") is None


# -- when something is wrong


def test_a_server_that_has_gone_is_told_and_can_be_asked_again(context: BrowserContext) -> None:
    with running(service_of(EMBEDDER, RERANKER)) as client:
        page = opened(context, str(client.base_url))
        rank(page)
    page.get_by_role("button", name="Rank").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing answers at")
    expect(page.get_by_role("button", name="Rank")).to_be_enabled()


def test_a_server_with_a_key_gets_it_from_a_field_and_only_memory_keeps_it(context: BrowserContext) -> None:
    settings = ServerSettings(api_key="open sesame")
    with running(service_of(EMBEDDER, RERANKER), settings) as client:
        page = opened(context, str(client.base_url))
        expect(page.get_by_label("API key")).to_be_focused()
        expect(page.get_by_role("alert"), "nothing is wrong yet").to_have_count(0)
        for key in ("friend", "open sesame"):
            page.get_by_label("API key").fill(key)
            page.keyboard.press("Enter")
            if key == "friend":
                expect(page.get_by_role("alert")).to_contain_text("The key was not accepted")
        expect(page.get_by_role("alert")).to_be_hidden()
        rank(page)
        assert "sesame" not in page.evaluate("document.documentElement.outerHTML + location.href")
        page.reload()
        expect(page.get_by_label("API key")).to_be_focused()
        page.get_by_role("link", name="API").click()
        expect(page.get_by_role("button", name="Authorize")).to_be_visible()


def test_too_much_is_told_in_the_words_of_the_server(context: BrowserContext) -> None:
    settings = ServerSettings(max_documents=3)
    with running(service_of(EMBEDDER, RERANKER, settings=settings)) as client:
        page = opened(context, str(client.base_url))
        page.get_by_role("button", name="Rank").click()
        expect(page.get_by_role("alert")).to_contain_text("8 in one request, 3 at most")


def test_a_busy_server_says_when_to_ask_again(context: BrowserContext) -> None:
    settings = ServerSettings(max_queue=0)
    with running(service_of(EMBEDDER, RERANKER, settings=settings)) as client:
        page = opened(context, str(client.base_url))
        page.get_by_role("button", name="Rank").click()
        expect(page.get_by_role("alert")).to_contain_text("ask again in 1 s")


@pytest.mark.parametrize(("field", "told"), [("Query", "Type a query"), ("Passages", "Paste some")])
def test_what_is_missing_is_told_and_gets_the_focus(page: Page, field: str, told: str) -> None:
    page.get_by_label(field).fill("  ")
    page.get_by_role("button", name="Rank").click()
    expect(page.get_by_label(field)).to_be_focused()
    assert told in page.get_by_label(field).evaluate("(field) => field.validationMessage")


@pytest.mark.parametrize(("served", "missing"), [(EMBEDDER, "Cross-encoder"), (RERANKER, "Cosine")])
def test_a_server_with_one_model_shows_one_list(context: BrowserContext, served: str, missing: str) -> None:
    with running(service_of(served)) as client:
        page = opened(context, str(client.base_url))
        rank(page)
        expect(page.locator("ol")).to_have_count(1)
        expect(column(page, missing)).to_be_hidden()


def test_where_several_models_are_served_one_is_chosen(context: BrowserContext, tmp_path: str) -> None:
    with Llama.load(EMBEDDER) as llama:
        copy = shutil.copy(llama.model_path, f"{tmp_path}/second.gguf")
    with running(service_of(EMBEDDER, RERANKER, str(copy))) as client:
        page = opened(context, str(client.base_url))
        page.get_by_label("Model for cosine").select_option("second")
        with page.expect_request(lambda request: '"model":"second"' in (request.post_data or "")):
            rank(page)
