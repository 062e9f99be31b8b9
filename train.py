"""Train a personalised retrieval model, from a search log to a report of its recall.

    python train.py [CONFIG] [--set a.b=c …] [--data DIR] [--run DIR] [--resume]

The story, told in full by `uepp.pipeline`:

1. data       validate the tables, or generate the marketplace          uepp/data
2. mining     examples, histories, query-product graph, requests        uepp/data
3. features   vocabulary, resident catalogue, batches of ids            uepp/features
4. training   two towers, loss, negatives; checkpoints                  uepp/model, uepp/training
5. export     SavedModels, vectors, Faiss index, manifest               uepp/retrieval
6. evaluation recall against BM25, on days after training               uepp/evaluation

Resume: 1. a checkpoint holds weights, optimiser slots and the step; 2. batches are a function of
(seed, step); 3. so `--resume` goes on with the next step; 4. what is finished is not done again.
"""

import sys

from uepp.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
