/* What passes between the threads: fixed-size messages in bounded rings (ring.h).
 *
 * DESIGN. A message is plain data, copied into a slot of the ring; the only pointers are to immutable,
 * reference-counted item records (item_record.h) and to buffers whose ownership goes with the message. Item
 * slots are dense numbers that the loop's catalogue gives out, each announced to trainer and server
 * (M2SED_*_ITEM) before any message uses it.
 */
#ifndef M2SED_MESSAGES_H
#define M2SED_MESSAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "model/m2se.h"

enum { M2SED_CONTEXT_MAX = 64 }; /* sequence.length is at most this */

struct m2sed_item_record; /* item_record.h */

/* A place in a log: partition of the interactions topic, and position = log epoch << 48 | offset. */
struct m2sed_position {
  int32_t partition;
  uint64_t position;
};

enum m2sed_outcome {
  M2SED_TEACHES,     /* has a context; is an example */
  M2SED_NO_CONTEXT,  /* the first event of its user */
  M2SED_DUPLICATE,   /* same event_id seen before at another position */
  M2SED_DEAD_LETTER, /* undecodable or breaks a rule; gone to the dead-letter topic */
  M2SED_ERASED,      /* of a user who asked to be forgotten after it */
  M2SED_OUTCOMES
};

/* ---- loop -> trainer ---- */
enum m2sed_train_kind {
  M2SED_TRAIN_EVENT,      /* one record of the interactions topic, whatever became of it */
  M2SED_TRAIN_ITEM,       /* an item record: new slot, or new features, or deleted (record->deleted) */
  M2SED_TRAIN_FORGET,     /* nothing of the user of user_hash is kept */
  M2SED_TRAIN_CATALOGUE,  /* the items that were there at the start have been told: what waits may be trained
                           */
  M2SED_TRAIN_CHECKPOINT, /* take a snapshot as soon as possible and hand it back */
  M2SED_TRAIN_COPY,       /* a copy of the weights goes to the server, even if epoch_steps have not passed */
  M2SED_TRAIN_FLUSH,      /* close the last mini-batch however small (--until-end), then answer
                             M2SED_TRAINED_FLUSHED */
  M2SED_TRAIN_STOP        /* answer with a last snapshot (M2SED_TRAINED_SNAPSHOT, last = true), then end */
};
struct m2sed_train_message {
  enum m2sed_train_kind kind;
  enum m2sed_outcome outcome;
  struct m2sed_position at;
  uint64_t digest; /* XXH3-64 of topic, 0x00, partition, offset: what event_digest sums */
  int64_t event_time_ms;
  uint64_t user_hash; /* XXH3-64 of the user id: joins the examples of one user in a mini-batch */
  uint32_t item;      /* slot */
  uint32_t context_count;
  uint32_t context[M2SED_CONTEXT_MAX]; /* slots, oldest first */
  struct m2sed_item_record *record;    /* M2SED_TRAIN_ITEM: one reference goes with the message */
};

/* ---- trainer -> loop ---- */
enum m2sed_trained_kind {
  M2SED_TRAINED_STEP,     /* after each step */
  M2SED_TRAINED_SNAPSHOT, /* a snapshot to be written; give it back with m2sed_trainer_return_snapshot */
  M2SED_TRAINED_FLUSHED,
  M2SED_TRAINED_STOPPED
};
struct m2sed_trainer_counters { /* all since the beginning of the lineage; in the checkpoint */
  uint64_t trained_events, event_digest;
  uint64_t skipped_no_context, skipped_no_features, skipped_duplicate, skipped_guard, dead_lettered;
  uint64_t skipped_erased;       /* of users who asked to be forgotten before it was trained */
  uint64_t skipped_training_off; /* that had a context and came while train.enabled was false */
  uint64_t replay_taken_away; /* draws from the reservoir that were left out, because training was behind */
  uint64_t events_taken;      /* whatever became of them */
  uint64_t unparked;          /* whose features came late, and then they were there */
  uint64_t parking_dropped;   /* whose features did not come in time; also in skipped_no_features */
  uint64_t refused_in_a_row;  /* steps that were left out or far above a guess, since the last other one */
  uint64_t rollbacks;         /* how often the weights went back */
};
struct m2sed_checkpoint_state; /* checkpoint.h: everything a generation holds */
struct m2sed_trained_message {
  enum m2sed_trained_kind kind;
  uint64_t step;
  struct m2sed_trainer_counters counters;
  double loss, nip_text, nip_image, cmcl_text, cmcl_image, gradient_norm, over_guess, learning_rate;
  uint32_t fresh, replayed; /* examples of this step */
  uint32_t waiting;         /* fresh examples not yet trained */
  uint32_t parked;          /* fresh examples without features so far */
  uint64_t reservoir_size, reservoir_seen;
  double step_ms, stall_ms; /* of a step; with a snapshot: how long copying it held up the training */
  bool applied, last;
  enum m2se_left_out left_out; /* of a step */
  struct m2sed_checkpoint_state *snapshot;
};

/* ---- loop -> server ---- */
/* The best items for a user: the question of M2SED_SERVE_RECOMMEND and its answer. Lent to the server until
 * M2SED_SERVED_RECOMMEND brings it back, or the server has ended. At most M2SED_RANKINGS_MAX at a time. */
enum { M2SED_RANKINGS_MAX = 64, M2SED_RANKING_MAX = 100, M2SED_SEEN_MAX = 512 };
struct m2sed_ranking {
  uint32_t wanted; /* 1..M2SED_RANKING_MAX */
  uint32_t sequence_count, seen_count;
  uint32_t sequence[M2SED_CONTEXT_MAX]; /* newest L, slots, oldest first */
  uint32_t seen[M2SED_SEEN_MAX];        /* slots that are left out */
  uint64_t epoch, step;                 /* of the weights; 0: there is no epoch yet */
  uint32_t count;                       /* 0: or no item of the sequence has features */
  uint32_t slots[M2SED_RANKING_MAX];    /* best first */
  float scores[M2SED_RANKING_MAX];
};
enum m2sed_serve_kind {
  M2SED_SERVE_USER, /* encode a user */
  M2SED_SERVE_ITEM, /* item record, as for the trainer; featurised ones are encoded with the current epoch */
  M2SED_SERVE_CATALOGUE,  /* the items that were there at the start have been told: epochs may begin */
  M2SED_SERVE_EPOCH_DONE, /* all vectors of `epoch` are written: users are encoded with it from here on */
  M2SED_SERVE_RECOMMEND,  /* fill in `ranking` */
  M2SED_SERVE_STOP
};
struct m2sed_serve_message {
  enum m2sed_serve_kind kind;
  uint64_t tag;       /* comes back with the answer: the loop's request number */
  uint64_t epoch;     /* M2SED_SERVE_EPOCH_DONE */
  uint64_t user_hash; /* XXH3-64 of the user id; 0: not put together with others of this user that wait */
  bool evaluate;      /* target and context are given: rank target among all items before counting it */
  uint32_t target;
  uint32_t sequence_count, context_count;
  uint32_t sequence[M2SED_CONTEXT_MAX]; /* newest L including the event, slots, oldest first */
  uint32_t context[M2SED_CONTEXT_MAX];  /* newest L strictly before it */
  struct m2sed_item_record *record;
  struct m2sed_ranking *ranking;
};

/* ---- server -> loop ---- */
enum m2sed_served_kind {
  M2SED_SERVED_USER,  /* vector of a user (count 1), or count 0: no item of the sequence has features yet, or
                         `covered` */
  M2SED_SERVED_ITEMS, /* a block of item vectors of `epoch` */
  M2SED_SERVED_EPOCH, /* all blocks of `epoch` have been sent */
  M2SED_SERVED_RECOMMEND, /* `ranking` has its answer; in the order of the questions */
  M2SED_SERVED_STOPPED
};
enum { M2SED_SERVED_BLOCK = 8192 }; /* floats of a message */
struct m2sed_prequential { /* sums since the start of the process, model and popularity on the same events */
  uint64_t events;
  double hr10, ndcg10, mrr, hr10_unseen, ndcg10_unseen;
  double popularity_hr10, popularity_ndcg10, popularity_mrr, popularity_hr10_unseen, popularity_ndcg10_unseen;
};
struct m2sed_served_message {
  enum m2sed_served_kind kind;
  uint64_t tag, epoch, step; /* step of the weights */
  uint32_t dim, count;       /* vectors in this message */
  /* M2SED_SERVED_USER: */
  uint64_t sequence_tag; /* of the request whose sequence the vector shows: this one, or a newer one */
  bool covered;          /* the vector of an earlier request, covered_tag, shows this one's sequence too */
  uint64_t covered_tag;
  uint32_t slots[M2SED_SERVED_BLOCK / 64];
  float vectors[M2SED_SERVED_BLOCK];
  struct m2sed_prequential prequential; /* with M2SED_SERVED_USER */
  struct m2sed_ranking *ranking;
};

#endif
