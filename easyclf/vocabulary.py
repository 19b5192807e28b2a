"""Foreign words: what Keras, skorch, Lightning and scikit-learn call it, and what to type here."""

from __future__ import annotations

from collections.abc import Mapping


def _by_word(words_of: Mapping[str, str]) -> dict[str, str]:
    return {word: meaning for meaning, words in words_of.items() for word in words.split()}


# What to type stands in backquotes; a sentence where there is nothing of the kind. The guide
# (docs/guide/coming_from.md) shows the same tables.
FOREIGN_PARAMETERS = _by_word(
    {
        "`lr`": "learning_rate learning_rate_init eta0 base_lr",
        "`epochs`": "max_epochs max_iter n_epochs num_epochs nb_epoch n_iter iterations",
        "`optimizer`": "solver optim optimiser",
        "`loss`": "criterion loss_fn loss_func loss_function objective",
        "`optimizer__weight_decay`": "weight_decay alpha l2 penalty C",
        "`optimizer__momentum`": "momentum",
        "`optimizer__nesterov`": "nesterov nesterovs_momentum",
        "`optimizer__betas`": "betas",
        "`module`": "model net network estimator build_fn model_fn",
        "`module__hidden`": "hidden hidden_layer_sizes hidden_units hidden_size hidden_layers",
        "`module__dropout`": "dropout dropout_rate",
        "`module__activation`": "activation",
        "`callbacks=[EarlyStopping(patience=...)]`": (
            "early_stopping patience n_iter_no_change restore_best_weights monitor "
            "early_stopping_rounds"
        ),
        '`callbacks=[EarlyStopping("loss", min_delta=...)]`': "tol min_delta",
        "`validation_split`": (
            "validation_fraction validation_size val_split train_split test_size cv"
        ),
        "`fit(X, y, validation_data=(X_val, y_val))`": (
            "validation_data val_data eval_set valid_data X_val y_val"
        ),
        "`fit(X, y, groups=...)`": "groups",
        "`fit(loader)`": (
            "train_loader trainloader train_dataloader train_dataloaders dataloader dataloaders "
            "dataset train_dataset datamodule"
        ),
        "`fit(X, y, validation_data=loader)`": (
            "val_loader valloader valid_loader val_dataloader val_dataloaders val_dataset"
        ),
        "`fit(X, y, warm_start=True)`": "initial_epoch start_epoch init_model",
        "`fit(X, y, steps_per_epoch=...)`": "steps_per_epoch limit_train_batches",
        "`fit(X, y, sample_weight=...)`": "sample_weight sample_weights",
        "`batch_size`": "batch batchsize minibatch_size mini_batch_size max_batch_size",
        "`clip_grad_norm`": (
            "gradient_clip_val gradient_clip_value gradient_clipping grad_clip clip_norm clipnorm "
            "global_clipnorm max_grad_norm"
        ),
        "`accumulate`": (
            "accumulate_grad_batches gradient_accumulation gradient_accumulation_steps"
        ),
        "`random_state`": "seed random_seed manual_seed",
        "`device`": "gpu gpus cuda use_cuda use_gpu accelerator",
        "`precision`": "mixed_precision amp dtype fp16 bf16",
        "`compile`": "jit jit_compile torch_compile",
        "`class_weight`": "class_weights",
        "`classes`": "n_classes num_classes",
        "`preprocess`": "transform transforms",
        "`augment`": "augmentation augmentations data_augmentation",
        "`freeze`": "trainable frozen",
        "`verbose`": "verbosity",
        "`callbacks`": "callback",
        "`loader__num_workers`": "num_workers workers use_multiprocessing max_queue_size",
        "`loader__pin_memory`": "pin_memory",
        "`loader__collate_fn`": "collate_fn",
        "`sklearn.model_selection.FixedThresholdClassifier`": "threshold",
        "`callbacks=[LRScheduler(...)]`": (
            "scheduler lr_scheduler lr_schedule learning_rate_schedule schedule"
        ),
        "`metrics`": "metric scoring scorer scorers eval_metric weighted_metrics",
        "`callbacks=[Checkpoint(folder)]`": (
            "checkpoint checkpoint_path ckpt_path resume_from_checkpoint load_best_model_at_end"
        ),
        "torch computes with all cores; `torch.set_num_threads(n)` says with how many.": (
            "n_jobs num_threads n_threads"
        ),
        "validation goes through all rows after every epoch, so that its figures are exact.": (
            "validation_steps validation_freq check_val_every_n_epoch limit_val_batches"
        ),
        "validation takes as many rows at once as memory has room for.": (
            "validation_batch_size val_batch_size eval_batch_size"
        ),
    }
)
# Prefixes of forwarded parameters.
FOREIGN_PREFIXES = _by_word(
    {
        "loss": "criterion",
        "loader": "iterator_train iterator_valid dataloader",
        "module": "model net network",
        "optimizer": "solver optim",
    }
)
# Names of losses, in lower case.
FOREIGN_LOSSES = _by_word(
    {
        "`cross_entropy`": (
            "categorical_crossentropy sparse_categorical_crossentropy crossentropyloss "
            "cross_entropy_loss crossentropy cross-entropy softmax log_loss logloss log ce"
        ),
        "`bce` (after a sigmoid) or `bce_with_logits` (without one)": (
            "binary_crossentropy binary_cross_entropy bceloss"
        ),
        "`bce_with_logits`": "bcewithlogitsloss binary_cross_entropy_with_logits bce_logits",
        "`nll`": "nllloss nll_loss negative_log_likelihood",
        "`torch.nn.MultiMarginLoss()`": "hinge squared_hinge categorical_hinge multi_margin",
        "it is a function `(output, target)` of yours that gives a value for each row.": (
            "focal focal_loss mse mean_squared_error kld kl_divergence"
        ),
    }
)
# Suffixes of files, in lower case: whose they are.
FOREIGN_SUFFIXES = _by_word(
    {
        "files of torch": ".pt .pth .bin .ckpt",
        "files of Keras": ".h5 .hdf5 .keras",
        "pickles": ".pkl .pickle .joblib",
        "arrays of NumPy": ".npy .npz",
        "what `export` writes": ".onnx .pt2",
        "what `save_weights` writes": ".safetensors",
        "what `save` writes": ".easyclf",
    }
)
# Names of devices, in lower case.
FOREIGN_DEVICES = _by_word({"`auto`, which finds the fastest": "gpu accelerator best"})
# Quantities of the history.
FOREIGN_QUANTITIES = _by_word(
    {
        "`loss`": "train_loss training_loss",
        "`accuracy`": "acc train_acc train_accuracy training_accuracy",
        "`val_loss`": "valid_loss validation_loss test_loss dev_loss eval_loss",
        "`val_accuracy`": (
            "val_acc valid_acc valid_accuracy validation_accuracy validation_acc test_accuracy"
        ),
        "`lr`": "learning_rate",
        "`seconds`": "dur time duration",
    }
)
# Metrics that `metrics=` may name.
FOREIGN_METRICS = _by_word(
    {
        "`accuracy`": (
            "acc sparse_categorical_accuracy categorical_accuracy binary_accuracy "
            "multiclass_accuracy"
        ),
        "`roc_auc`, or `roc_auc_ovr` for more than two classes": "auc auroc roc",
        "`f1_macro`, or `f1` for two classes": "f1score f1-score f1_score fscore",
        "`precision_macro`, or `precision` for two classes": "precision_score prec",
        "`recall_macro`, or `recall` for two classes": "recall_score sensitivity tpr",
        "`neg_log_loss`": (
            "log_loss logloss cross_entropy crossentropy categorical_crossentropy nll "
            "sparse_categorical_crossentropy"
        ),
        "`balanced_accuracy`": "bacc balanced_acc balanced_accuracy_score",
        "`matthews_corrcoef`": "mcc",
        "`average_precision`": "ap map pr_auc auprc",
        "`top_k_accuracy`": "top5 top_5 topk top_k_categorical_accuracy",
        "`neg_brier_score`": "brier brier_score",
    }
)
# Hooks of callbacks.
FOREIGN_HOOKS = _by_word(
    {
        "`on_train_begin`": "on_train_start on_fit_start on_fit_begin on_training_begin",
        "`on_train_end`": "on_fit_end on_training_end",
        "`on_epoch_begin`": "on_epoch_start on_train_epoch_start on_train_epoch_begin",
        "`on_epoch_end`": (
            "on_train_epoch_end on_validation_end on_validation_epoch_end on_test_end "
            "on_evaluate_end"
        ),
        "`on_batch_begin`": (
            "on_batch_start on_train_batch_begin on_train_batch_start on_step_begin"
        ),
        "`on_batch_end`": "on_train_batch_end on_step_end on_grad_computed",
        "validation and prediction have no hooks of their own; `on_epoch_end` has their figures.": (
            "on_test_begin on_test_batch_begin on_test_batch_end on_predict_begin on_predict_end "
            "on_predict_batch_begin on_predict_batch_end on_validation_start "
            "on_validation_batch_end on_validation_batch_start"
        ),
    }
)
# Classes of callbacks, by their names, which are no callbacks here.
FOREIGN_CALLBACKS = _by_word(
    {
        "`EarlyStopping()`, which also keeps the best weights and puts them back.": (
            "EarlyStopping BestModelRestore SaveModelCallback"
        ),
        "`Checkpoint(folder)`, which also resumes; `monitor` has it keep the best weights.": (
            "ModelCheckpoint Checkpoint BackupAndRestore TrainEndCheckpoint LoadInitState"
        ),
        "`metrics=[...]` of Estimator, as in metrics=['f1_macro'].": (
            "EpochScoring BatchScoring PassthroughScoring MetricCallback"
        ),
        "`LRScheduler(...)`, with a name of torch's or a function.": (
            "LearningRateScheduler LRScheduler WarmRestartLR OneCycleScheduler CosineAnnealingLR "
            "OneCycleLR CyclicLR StepLR MultiStepLR ExponentialLR LinearLR PolynomialLR LambdaLR"
        ),
        "`clf.find_lr(X, y).suggestion_`.": "LearningRateFinder LRFinder",
        "`ReduceLROnPlateau(...)`.": "ReduceLROnPlateau",
        "`AccuracyLogger()`.": "PrintLog ProgbarLogger EpochTimer",
        "`ProgressBar()`.": "ProgressBar TQDMProgressBar RichProgressBar",
        "`history_`, which every fit leaves.": "History Recorder",
        "`clip_grad_norm` of Estimator.": ("GradientNormClipping ClipNorm ClipValue GradientClip"),
        "`freeze` of Estimator.": "Freezer",
        "`Unfreeze({epoch: patterns})`.": "Unfreezer BackboneFinetuning",
        "`EMA()`.": "SwapEMAWeights EMAHandler EMAWeightAveraging EMACallback",
        "`SWA()`.": "StochasticWeightAveraging",
        "a module's sizes, which are filled in from the data.": "InputShapeSetter",
        "`TimeLimit(seconds)`.": "Timer TimeStopping",
        "nothing: a loss that is not finite ends the training with `TrainingDiverged`.": (
            "TerminateOnNaN NaNStopping"
        ),
        "`LambdaCallback(on_epoch_end=...)`.": "LambdaCallback ParamMapper",
        "`LambdaCallback(on_epoch_end=...)`, a function that gives `state.logs` to its client.": (
            "WandbLogger MlflowLogger NeptuneLogger SacredLogger CometLogger RemoteMonitor"
        ),
        "`callbacks=[...]` of Estimator, which calls them in this order.": "CallbackList",
        "`module`, a function that makes it with the weights that you want.": "Initializer",
        "`torch.save(clf.module_.state_dict(), path)`; the other is a format of JAX's.": (
            "OrbaxCheckpoint"
        ),
        "`history_['lr']`, which every fit has.": "LearningRateMonitor LRMonitor",
    }
)
# Methods of estimators and models, which are overridden there.
FOREIGN_METHODS = _by_word(
    {
        "`loss`, a function `(output, target)` that gives a value for each row": (
            "get_loss compute_loss initialize_criterion"
        ),
        "a `Callback`, whose `on_batch_begin` and `on_batch_end` stand around every step": (
            "train_step train_step_single training_step run_single_epoch fit_loop train_on_batch "
            "make_train_function"
        ),
        "a `Callback`, whose hooks have the figures of an epoch in `state.logs`": (
            "validation_step evaluation_step test_step on_train_begin on_train_end on_epoch_begin "
            "on_epoch_end on_batch_begin on_batch_end on_grad_computed initialize_callbacks "
            "configure_callbacks notify initialize_history"
        ),
        "`optimizer`, a function `params -> Optimizer`": (
            "initialize_optimizer configure_optimizers optimizer_step"
        ),
        "`module`, a function that makes it, with `module__*` for its arguments": (
            "initialize_module initialize build_model build"
        ),
        "`module`, whose `forward` it is": "forward infer call forward_iter predict_step",
        "`fit(dataset)`, with `loader__*` for how it is read": (
            "get_dataset get_iterator get_train_data train_dataloader val_dataloader"
        ),
        "`fit(X, y, validation_data=...)` or `validation_split`": "get_split_datasets",
        "`preprocess`, which is given every batch of X on the device": "check_data prepare_data",
        "`loss`, by which the probabilities are made": "predict_nonlinearity",
    }
)
