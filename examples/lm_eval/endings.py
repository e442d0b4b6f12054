"""Questions of the task sfq_endings: every sentence of eight words or more is cut in the middle,
and its second half stands among those of the three sentences that follow it (in a circle)."""

import re


def halves(paragraph):
    """(what stands before the cut, the rest of the sentence) of each long sentence."""
    text = " ".join(paragraph.split())
    for sentence in re.finditer(r"\S.*?[.!?][\"']?(?= |$)", text):
        words = sentence.group().split()
        if len(words) >= 8:
            cut = len(words) // 2
            before = (text[:sentence.start()] + " ".join(words[:cut])).strip()
            yield before, " ".join(words[cut:])


def questions(dataset):
    """lm-eval's process_docs: paragraphs {text} to {context, endings, answer}."""
    cuts = [cut for row in dataset for cut in halves(row["text"])]
    rows = []
    for i, (context, _) in enumerate(cuts):
        answer = i % 4  # every place is right as often as the others
        endings = [cuts[(i + k) % len(cuts)][1] for k in range(4)]
        endings[0], endings[answer] = endings[answer], endings[0]
        rows.append({"context": context, "endings": endings, "answer": answer})
    return type(dataset).from_list(rows)
