"""De-duplication: what repeats goes, the first stays, whatever the cut into tasks, and a killed task leaves nothing behind."""

import os
import random
import signal
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared import BUNDLED

from data_prep.duplicates import dedup_stages, join, minhash_keys, read_removed
from data_prep.shingles import CONFIG, SHINGLES_AT_ONCE, Words, minima, signature_step
from tokenizer.corpus import Document, read_documents

NUM_ORIGINALS = 150

CHINESE = [
    "學而時習之，不亦說乎？有朋自遠方來，不亦樂乎？人不知而不慍，不亦君子乎？其為人也孝弟，而好犯上者，鮮矣；不好犯上，而好作亂者，未之有也。"
    "君子務本，本立而道生。孝弟也者，其為仁之本與！巧言令色，鮮矣仁。吾日三省吾身：為人謀而不忠乎？與朋友交而不信乎？傳不習乎？",
    "道可道，非常道。名可名，非常名。無名天地之始；有名萬物之母。故常無欲，以觀其妙；常有欲，以觀其徼。此兩者，同出而異名，同謂之玄。玄之又玄，"
    "眾妙之門。天下皆知美之為美，斯惡已。皆知善之為善，斯不善已。故有無相生，難易相成，長短相較，高下相傾，音聲相和，前後相隨。",
    "孟子見梁惠王。王曰：叟不遠千里而來，亦將有以利吾國乎？孟子對曰：王何必曰利？亦有仁義而已矣。王曰何以利吾國？大夫曰何以利吾家？士庶人曰何以"
    "利吾身？上下交征利而國危矣。萬乘之國弒其君者，必千乘之家；千乘之國弒其君者，必百乘之家。萬取千焉，千取百焉，不為不多矣。",
]


@pytest.fixture(scope="module")
def originals():
    """Pieces of 2,000 characters of the first addresses; none is nearly another."""
    pieces = []
    for document in read_documents([str(BUNDLED)]):
        pieces += [document.text[start : start + 2000] for start in range(0, len(document.text) - 2000, 2000)]
        if len(pieces) >= NUM_ORIGINALS:
            return pieces[:NUM_ORIGINALS]


def with_passage_replaced(text, share, source):
    """A run of `share` of the words, somewhere, becomes other words."""
    words = text.split()
    size = round(share * len(words))
    start = source.randrange(len(words) - size)
    return " ".join([*words[:start], *(f"{source.choice(words)}x" for _ in range(size)), *words[start + size :]])


def documents_of(texts, num_tasks, task):
    begin, end = len(texts) * task // num_tasks, len(texts) * (task + 1) // num_tasks
    for number in range(begin, end):
        yield Document(0, number, texts[number], "")


def stages_of(method, texts, num_tasks, folder):
    return dedup_stages(method, partial(documents_of, texts, num_tasks), num_tasks, num_tasks * 10**8, folder)


def removed_of(method, texts, num_tasks, folder):
    """Places in `texts` of what is left out."""
    for stage in stages_of(method, texts, num_tasks, folder):
        for task in reversed(range(stage.num_tasks)):
            stage.run_task(task)
    starts = [len(texts) * task // num_tasks for task in range(num_tasks)]
    return [start + int(number) for task, start in enumerate(starts) for number in read_removed(method, folder, task)]


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("num_tasks", [1, 3, 16, 250])
def test_exact_keeps_the_first_of_equal_texts_for_any_cut_into_tasks(originals, num_tasks, tmp_path):
    texts = [*originals, originals[7], originals[3], originals[7], originals[0] + "."]
    assert removed_of("exact", texts, num_tasks, tmp_path) == [NUM_ORIGINALS, NUM_ORIGINALS + 1, NUM_ORIGINALS + 2]


@pytest.mark.parametrize("num_tasks", [1, 3, 16, 40])
def test_minhash_finds_copies_with_a_twentieth_replaced_and_no_other_for_any_cut_into_tasks(originals, num_tasks, tmp_path):
    # Among about 340 words, 17 replaced in a row spoil 21 of 336 5-grams: four bands of fourteen agree on average.
    source = random.Random(0)
    copies = [with_passage_replaced(text, 0.05, source) for text in originals[:60]]
    texts = [*originals, *copies]
    assert removed_of("minhash", texts, num_tasks, tmp_path) == list(range(NUM_ORIGINALS, NUM_ORIGINALS + 60))


def test_minhash_keeps_the_first_document_even_where_later_ones_join_its_group(originals, tmp_path):
    source = random.Random(1)
    middle = with_passage_replaced(originals[0], 0.05, source)
    far = with_passage_replaced(with_passage_replaced(middle, 0.05, source), 0.05, source)
    texts = [originals[0], *originals[5:60], far, far + " The end.", middle]
    assert removed_of("minhash", texts, 4, tmp_path) == [56, 57, 58]


def test_minhash_groups_are_those_of_datatrove(originals, tmp_path):
    from datatrove.data import Document as TheirDocument
    from datatrove.pipeline.dedup.minhash import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature

    source = random.Random(2)  # from copies that are surely found to some that are surely not
    texts = [*originals, *(with_passage_replaced(text, source.uniform(0, 0.5), source) for text in originals * 2)]
    folders = [str(tmp_path / name) for name in ("signatures", "matches", "groups")]
    for task in range(3):
        theirs = (TheirDocument(text=document.text, id="") for document in documents_of(texts, 3, task))
        MinhashDedupSignature(folders[0], CONFIG, language=Words()).run(theirs, task, 3)
    for task in range(CONFIG.num_buckets):
        MinhashDedupBuckets(*folders[:2], config=CONFIG).run(None, task, CONFIG.num_buckets)
    MinhashDedupCluster(*folders[1:], CONFIG, save_cluster_id=True).run(None, 0, 1)
    expected, seen = [], set()
    for task in range(3):
        for number, group in np.fromfile(tmp_path / "groups" / f"{task:06d}.clusters", "<u4").reshape(-1, 2):
            if group in seen:
                expected.append(len(texts) * task // 3 + int(number))
            seen.add(group)
    assert 80 < len(expected) < 200  # a third of the 300 copies
    assert removed_of("minhash", texts, 3, tmp_path) == expected


def test_minhash_finds_nearly_equal_chinese_and_thai():
    source = random.Random(3)
    thai = "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิต่างมีเหตุผลและมโนธรรมและควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ"
    for text in [*CHINESE, thai]:
        start = source.randrange(10, len(text) - 10)
        changed = text[:start] + "猫" + text[start + 1 :]
        assert set(minhash_keys(text)) & set(minhash_keys(changed))
    keys = [set(minhash_keys(text)) for text in CHINESE]
    assert len(set().union(*keys)) == sum(map(len, keys))


def test_short_documents_are_told_equal_and_those_without_words_are_kept(tmp_path):
    texts = ["Thank you.", "!!!", "thank you", "Thank them.", "!!!", "谢", "谢。", "..."]
    assert removed_of("minhash", texts, 3, tmp_path) == [2, 6]


def test_a_long_text_has_the_signature_that_datatrove_gives_it_at_once(originals):
    text = " ".join(originals[:10])
    shingles = signature_step().get_shingles(text)
    assert len(shingles) > 3 * SHINGLES_AT_ONCE
    assert np.array_equal(minima(text), np.array(signature_step().get_signature(shingles), np.uint64))


@pytest.mark.parametrize("method", ["exact", "minhash"])
def test_a_task_that_was_killed_leaves_the_same_files_when_it_runs_again(originals, method, tmp_path):
    texts = [*originals[:40], *originals[:20]]
    assert removed_of(method, texts, 3, tmp_path / "whole") == list(range(40, 60))

    def killed_in_the_middle(task):
        for document in documents_of(texts, 3, task):
            if document.offset == 30:
                os.kill(os.getpid(), signal.SIGKILL)
            yield document

    if (child := os.fork()) == 0:
        try:
            dedup_stages(method, killed_in_the_middle, 3, 0, tmp_path / "again")[0].run_task(1)
        finally:
            os._exit(1)  # never back into pytest
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert files_in(tmp_path / "again") == {}
    for _ in range(2):
        assert removed_of(method, texts, 3, tmp_path / "again") == list(range(40, 60))
        assert files_in(tmp_path / "again") == files_in(tmp_path / "whole")


@pytest.mark.parametrize("method", ["exact", "minhash"])
def test_a_store_and_tasks_without_documents_are_no_special_case(originals, method, capfd):
    texts = [originals[0], originals[1], originals[0]]
    assert removed_of(method, texts, 20, f"memory://duplicates-{method}") == [2]
    assert removed_of(method, [], 3, f"memory://nothing-{method}") == []
    assert capfd.readouterr() == ("", "")  # datatrove's own log stays out


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30))
def test_joined_documents_lead_to_the_first_of_their_group(pairs):
    groups = list(range(20))
    for a, b in pairs:
        old, new = max(groups[a], groups[b]), min(groups[a], groups[b])
        groups = [new if group == old else group for group in groups]
    earlier = np.arange(20, dtype=np.uint32)
    join(earlier, np.array(pairs, np.uint64).reshape(-1, 2))
    for _ in range(20):
        earlier = earlier[earlier]
    assert earlier.tolist() == groups
