#!/usr/bin/env python3
"""The models of tests/bench/train.lua in PyTorch: same options, same timed region, same output.

One embedding holds the linear weight and the vector of an id, so that a row costs one gather: the
quickest way to write these models there. Ids are made dense outside the timed region.
"""
import argparse
import json
import resource
import statistics
import time

import numpy
import torch
import torch.nn.functional as F


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True, choices=["lr", "fm", "wide_deep", "deepfm"])
    p.add_argument("--data", required=True)
    p.add_argument("--test")
    for name, value in [("fields", 39), ("dim", 16), ("batch", 1024), ("threads", 2),
                        ("rows", 0), ("repeat", 3)]:
        p.add_argument("--" + name, type=int, default=value)
    p.add_argument("--opt", choices=["adagrad", "adam"], default="adagrad")
    p.add_argument("--json", action="store_true")
    return p.parse_args()


class Model(torch.nn.Module):
    def __init__(self, kind, values, fields, dim):
        super().__init__()
        self.fm = kind in ("fm", "deepfm")
        self.linear = kind == "lr"
        self.bias = torch.nn.Parameter(torch.zeros(()))
        if self.linear:
            self.table = torch.nn.EmbeddingBag(values, 1, mode="sum", sparse=True)
            torch.nn.init.zeros_(self.table.weight)
            return
        self.table = torch.nn.Embedding(values, dim + 1, sparse=True)
        torch.nn.init.normal_(self.table.weight, 0, 0.01)
        self.table.weight.data[:, 0].zero_()
        self.deep = None
        if kind in ("wide_deep", "deepfm"):
            layers, width = [], fields * dim
            for n in (256, 128):
                layers += [torch.nn.Linear(width, n), torch.nn.ReLU()]
                width = n
            self.deep = torch.nn.Sequential(*layers, torch.nn.Linear(width, 1))

    def forward(self, ids):
        rows = self.table(ids)
        if self.linear:
            return rows[:, 0] + self.bias
        logit, vectors = rows[:, :, 0].sum(dim=1) + self.bias, rows[:, :, 1:]
        if self.fm:
            total = vectors.sum(dim=1)
            logit = logit + (total * total - (vectors * vectors).sum(dim=1)).sum(dim=1) / 2
        if self.deep is not None:
            logit = logit + self.deep(vectors.reshape(len(ids), -1))[:, 0]
        return logit


def optimizers(model, rule):
    table = list(model.table.parameters())
    rest = [p for p in model.parameters() if all(p is not t for t in table)]
    sparse = (torch.optim.Adagrad(table, lr=0.05, initial_accumulator_value=1e-5) if rule == "adagrad"
              else torch.optim.SparseAdam(table, lr=0.003))
    return sparse, torch.optim.Adam(rest, lr=1e-3)


def epoch(model, rule, ids, labels, batch):
    """Seconds of one pass over the full batches."""
    pair = optimizers(model, rule)
    began = time.perf_counter()
    for at in range(0, len(labels) - batch + 1, batch):
        loss = F.binary_cross_entropy_with_logits(model(ids[at:at + batch]), labels[at:at + batch])
        for optimizer in pair:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in pair:
            optimizer.step()
    return time.perf_counter() - began


def auc(scores, labels):
    """Ties counted half: mean rank of each distinct score."""
    _, group, count = numpy.unique(scores, return_inverse=True, return_counts=True)
    rank = (numpy.cumsum(count) - (count - 1) / 2)[group]
    positive = labels.sum()
    return float((rank[labels == 1].sum() - positive * (positive + 1) / 2)
                 / (positive * (len(labels) - positive)))


def main():
    a = arguments()
    torch.set_num_threads(a.threads)
    raw = numpy.fromfile(a.data, "<i8").reshape(-1, a.fields + 1)
    if a.rows:
        raw = raw[:a.rows]
    known, dense = numpy.unique(raw[:, :-1], return_inverse=True)
    ids = torch.from_numpy(dense.reshape(-1, a.fields))
    labels = torch.from_numpy(raw[:, -1].astype("f4"))
    rows = len(labels) // a.batch * a.batch
    rates, score = [], None
    for r in range(a.repeat):
        torch.manual_seed(r + 1)
        model = Model(a.model, len(known) + 1, a.fields, a.dim)
        rates.append(round(rows / epoch(model, a.opt, ids, labels, a.batch)))
        if a.test and r == 0:
            raw = numpy.fromfile(a.test, "<i8").reshape(-1, a.fields + 1)
            at = numpy.minimum(numpy.searchsorted(known, raw[:, :-1]), len(known) - 1)
            unseen = numpy.where(known[at] == raw[:, :-1], at, len(known))
            with torch.no_grad():
                parts = [model(part) for part in torch.from_numpy(unseen).split(4096)]
            score = auc(torch.cat(parts).numpy(), raw[:, -1])
    out = {"peer": "pytorch " + torch.__version__, "model": a.model, "opt": a.opt,
           "batch": a.batch, "threads": a.threads, "rows": rows,
           "rows_per_second": round(statistics.median(rates)), "rows_per_second_all": rates,
           "auc": score,
           "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if a.json:
        print(json.dumps(out))
    else:
        print("{peer} {model}: {rows_per_second} rows/s (of {rows_per_second_all}), auc {auc}"
              .format(**out))


main()
