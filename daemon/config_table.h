/* The table of all settings; config.h says how it is used.
 *
 * X(section, key, kind, default, min, max, words, help)
 *   kind: TEXT (min, max: bytes), COUNT (whole number), REAL, SWITCH, CHOICE (of words, "a|b")
 *   help: for people, with the unit; the printer breaks the lines
 */
#ifndef M2SED_CONFIG_TABLE_H
#define M2SED_CONFIG_TABLE_H

#define M2SED_COUNT_MAX 1e18

/* clang-format off */
#define M2SED_SETTINGS(X) \
  X(daemon, instance, TEXT, "m2sed", 1, 128, "", "Name of this daemon in logs and in its status.") \
  X(daemon, state_dir, TEXT, "state", 1, 400, "", \
    "Folder for what --embedded needs: its Redis data, and the file 'brokers' with the address of its " \
    "Kafka.") \
  X(daemon, embedded_partitions, COUNT, "4", 1, 64, "", \
    "Partitions of the interactions topic that --embedded makes.") \
  X(kafka, brokers, TEXT, "localhost:9092", 1, 511, "", \
    "Bootstrap addresses, host:port, separated by commas.") \
  X(kafka, group, TEXT, "m2sed", 1, 249, "", \
    "Consumer group of the interactions topic. Offsets are committed to it for lag monitors only: " \
    "positions come from the checkpoint.") \
  X(kafka, interactions, TEXT, "interactions", 1, 245, "", "Topic of the interactions.") \
  X(kafka, items, TEXT, "items", 1, 245, "", \
    "Topic of the items (compacted), read from its beginning.") \
  X(kafka, erasures, TEXT, "erasures", 0, 245, "", \
    "Topic of requests to forget a user: the key is the user's id; empty: none.") \
  X(kafka, status, TEXT, "m2se.status", 0, 245, "", \
    "Topic of the status, one record a second; empty: none.") \
  X(kafka, start, TEXT, "earliest", 1, 32, "", \
    "Where a partition without a position in the checkpoint starts: earliest, latest, or a time in " \
    "milliseconds since 1970.") \
  X(kafka, on_lost, CHOICE, "stop", 0, 0, "stop|continue", \
    "What to do when retention has removed events that were not read: stop, or report the number and go " \
    "on.") \
  X(kafka, garbage_share, REAL, "0.5", 0, 1, "", \
    "When more than this share of the last kafka.garbage_window interactions could not be decoded, " \
    "consumption pauses until SIGHUP or a restart (--until-end: stops); 1: never.") \
  X(kafka, garbage_window, COUNT, "1000", 10, 1e6, "", \
    "How many interactions kafka.garbage_share looks at.") \
  X(redis, uri, TEXT, "redis://localhost:6379", 1, 511, "", \
    "redis://[[user]:password@]host[:port][/db] or unix:///path[?db=N].") \
  X(redis, prefix, TEXT, "m2se:", 0, 64, "", "What all keys begin with.") \
  X(redis, timeout_ms, COUNT, "5000", 100, 600000, "", \
    "Longest wait for a reply or a connection, milliseconds.") \
  X(redis, in_flight, COUNT, "2048", 16, 16384, "", \
    "Events whose Redis call is not answered yet: beyond it consumption pauses.") \
  X(sequence, length, COUNT, "50", 1, 64, "", "Newest items of a user that the model sees (L).") \
  X(sequence, keep, COUNT, "100", 2, 512, "", \
    "Newest items of a user that Redis keeps; more than sequence.length.") \
  X(sequence, ttl_seconds, COUNT, "7776000", 0, 3e9, "", \
    "Sequence and vector of a user go this long after the last event, seconds; 0: never.") \
  X(model, feature_dim, COUNT, "0", 0, 4096, "", \
    "Width of the items' feature rows (d); 0: the first item with rows says it.") \
  X(model, attention, COUNT, "64", 1, 4096, "", "Width of the attention pooling (d_a).") \
  X(model, hidden, COUNT, "64", 1, 1024, "", "Width of the network (h), a multiple of model.heads.") \
  X(model, experts, COUNT, "8", 1, 64, "", "Experts of each modality (O).") \
  X(model, layers, COUNT, "2", 1, 16, "", "Transformer layers.") \
  X(model, heads, COUNT, "2", 1, 16, "", "Attention heads of a layer.") \
  X(model, ffn, COUNT, "256", 1, 8192, "", "Width of the feed-forward layers.") \
  X(model, dropout, REAL, "0.2", 0, 0.95, "", "Dropout probability.") \
  X(model, temperature, REAL, "0.2", 0.001, 10, "", \
    "Temperature of the losses (tau). 0.2 learns a stream better than the paper's 0.07.") \
  X(model, lambda, REAL, "0.01", 0, 100, "", "Weight of the cross-modal contrastive loss.") \
  X(model, sequence_dropout, REAL, "0.2", 0, 0.95, "", \
    "Items of a sequence are left out with a probability drawn from 0 to this.") \
  X(model, mixup, REAL, "0.5", 0, 1, "", \
    "Modalities are swapped with a probability drawn from 0 to this.") \
  X(model, seed, COUNT, "1", 0, M2SED_COUNT_MAX, "", "All random draws follow from it.") \
  X(model, items_max, COUNT, "100000", 1, 1e7, "", \
    "Most items that the catalogue takes; memory for their residuals is taken at the start.") \
  X(model, rows_max, COUNT, "32", 1, 1024, "", \
    "Most feature rows of an item in one modality; an item with more goes to the dead letters.") \
  X(train, enabled, SWITCH, "true", 0, 0, "", \
    "Learn. Without it events go into the sequences and their positions into the checkpoint; they are " \
    "counted as skipped_training_off and not learned later. Vectors come from the checkpoint's weights as " \
    "they are; there are none if nothing was learned yet.") \
  X(train, batch, COUNT, "128", 1, 65536, "", \
    "Sequences of a mini-batch, fresh and replayed ones together.") \
  X(train, threads, COUNT, "1", 1, 256, "", \
    "Threads of a training step. The result is the same for any number.") \
  X(train, nice, COUNT, "10", 0, 19, "", \
    "How far the training threads stand back when processors are short, so that vectors stay fresh: 0 not " \
    "at all, 19 most.") \
  X(train, targets, CHOICE, "all", 0, 0, "all|last", \
    "A target at every position, or (the paper) at the last one.") \
  X(train, learning_rate, REAL, "0.003", 0, 10, "", "Adam's learning rate.") \
  X(train, item_residual, SWITCH, "true", 0, 0, "", \
    "A learned vector per item and modality beside its content.") \
  X(train, residual_learning_rate, REAL, "0.01", 0, 10, "", "Learning rate of the item residuals.") \
  X(train, item_bias, SWITCH, "true", 0, 0, "", \
    "A learned number per item: how likely it is whoever asks.") \
  X(train, bias_learning_rate, REAL, "0.01", 0, 10, "", "Learning rate of the item biases.") \
  X(train, clip_norm, REAL, "5", 0, 1e9, "", \
    "Norm to which a larger gradient is scaled down; 0: never.") \
  X(train, gradient_norm_max, REAL, "0", 0, 1e30, "", \
    "A step whose gradient is larger is left out; 0: only if it is not finite.") \
  X(train, loss_max, REAL, "100", 0, 1e12, "", \
    "A step whose loss is larger is left out; it begins at about 20. 0: only if it is not finite.") \
  X(train, over_guess_max, REAL, "2", 0, 1e6, "", \
    "A step counts in the row of guard_rollback, but is not left out, if its loss is more than this above " \
    "that of a guess, the logarithm of the number of candidates (64 or more); 0: never.") \
  X(train, guard_rollback, COUNT, "20", 0, 1e6, "", \
    "After so many steps left out in a row the weights go back to those of the last checkpoint; positions " \
    "and counters stay. 0: never.") \
  X(train, replay_ratio, REAL, "3", 0, 1000, "", \
    "Replayed sequences for each fresh one in a mini-batch.") \
  X(train, reservoir, COUNT, "100000", 0, 1e8, "", \
    "Past examples kept for replay, a uniform sample of all.") \
  X(train, parking, COUNT, "10000", 0, 1e7, "", \
    "Most events that wait because their item, or all before it, has no features yet; the oldest one makes " \
    "room. 0: they are skipped at once.") \
  X(train, parking_events, COUNT, "1000000", 0, 1e15, "", \
    "After so many later events an event that waits for features is skipped.") \
  X(train, batch_seconds, REAL, "0", 0, 1e9, "", \
    "An event whose time lies more than this after the first one of a mini-batch closes that one, however " \
    "small, seconds of event time; 0: never.") \
  X(train, backlog, COUNT, "50000", 0, 1e7, "", \
    "Most events that wait for training while their vectors are published all the same; 320 bytes each, " \
    "three times. Beyond it consumption pauses.") \
  X(train, overload, CHOICE, "pause", 0, 0, "pause|shrink", \
    "When training is behind: pause consumption once the backlog is full, or before that, from half full " \
    "on, take replay away, so that fresh events are trained faster. Weights are then no longer the same " \
    "bit for bit after a restart. --until-end never shrinks.") \
  X(serve, epoch_steps, COUNT, "20", 1, 1e9, "", \
    "Training steps between two publications of all item vectors.") \
  X(serve, refresh_per_second, COUNT, "1000", 0, 1000000, "", \
    "Users without new events whose vector is made again with a new epoch, a second; 0: none, and their " \
    "vectors can't be read after two epochs.") \
  X(serve, vector_type, CHOICE, "float32", 0, 0, "float32|float16", \
    "Numbers of the vectors in Redis: float16 takes half the memory and about three digits. May be changed " \
    "between runs: field type of the model, and a vector's length, tell which it is.") \
  X(serve, evaluate, SWITCH, "true", 0, 0, "", \
    "Rank each event's item before learning from it (HR@10, NDCG@10, MRR), beside popularity.") \
  X(serve, popularity_weight, REAL, "0", 0, 100, "", \
    "Weight of log(kappa + decayed count) in an item's score (beta).") \
  X(serve, popularity_kappa, REAL, "1", 0.001, 1e9, "", "Added to the count (kappa).") \
  X(serve, popularity_half_life_seconds, REAL, "2592000", 1, 1e12, "", \
    "Event time in which a count loses half its weight, seconds.") \
  X(serve, exclude_seen, SWITCH, "true", 0, 0, "", \
    "Recommendations leave out the items of the user's sequence.") \
  X(checkpoint, dir, TEXT, "state/checkpoints", 1, 400, "", \
    "Folder of the checkpoints; one daemon at a time.") \
  X(checkpoint, every_seconds, COUNT, "60", 1, 1e9, "", "Time between two checkpoints, seconds.") \
  X(checkpoint, keep, COUNT, "3", 1, 1000, "", "Newest checkpoints that are kept.") \
  X(checkpoint, init_if_empty, SWITCH, "false", 0, 0, "", \
    "Start with fresh weights if there is no checkpoint, or if all are damaged (they are kept as " \
    "bad-gen-N); else that is refused, because it may mean a wrong folder.") \
  X(standby, lease_seconds, COUNT, "0", 0, 3600, "", \
    "Several daemons may share redis.prefix and checkpoint.dir: one is active, the others wait until it " \
    "has not renewed its lease in Redis for so long, seconds. Longer than loading a checkpoint takes, and " \
    "than Kafka takes for an answer; 10 is a good choice. 0: no lease, one daemon at a time.") \
  X(features, store, TEXT, "state/features", 1, 400, "", \
    "Folder of the feature rows computed from texts and images; made if it is not there.") \
  X(features, store_bytes, COUNT, "17179869184", 1048576, 1e15, "", \
    "Most bytes of that folder; when it is full, items wait.") \
  X(features, text_model, TEXT, "", 0, 400, "", \
    "Folder of a BERT as Hugging Face keeps it; empty: features come ready-made only.") \
  X(features, image_model, TEXT, "", 0, 400, "", \
    "Folder of a CLIP as Hugging Face keeps it; empty: items are text only.") \
  X(features, words, TEXT, "", 0, 400, "", \
    "File of the words that describe images, one a line; with features.image_model.") \
  X(features, templates, TEXT, "", 0, 600, "", \
    "What stands around a word when CLIP reads it, {} for the word, at most 3 separated by |: their " \
    "vectors are averaged. Empty: the word alone.") \
  X(features, words_per_image, COUNT, "15", 1, 100, "", "Words for each image.") \
  X(features, image_root, TEXT, "", 0, 400, "", \
    "Folder under which image paths are looked up; empty: only images that records bring along.") \
  X(features, nice, COUNT, "19", 0, 19, "", \
    "How far the thread that computes features stands back behind all others, as nice.") \
  X(http, listen, TEXT, "127.0.0.1:9464", 0, 128, "", \
    "Address of the HTTP server: HOST:PORT, :PORT for all addresses, empty for none. It asks nobody who " \
    "they are.") \
  X(log, level, CHOICE, "info", 0, 0, "debug|info|warn|error", "Least level that is logged.") \
  X(log, format, CHOICE, "logfmt", 0, 0, "logfmt|json", "One line an event on stderr, in this form.")
/* clang-format on */

#endif
