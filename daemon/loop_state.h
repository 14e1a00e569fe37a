/* What the files of the loop share. Private to loop*.c. */
#ifndef M2SED_LOOP_STATE_H
#define M2SED_LOOP_STATE_H

#include "daemon/catalogue.h"
#include "daemon/checkpoint.h"
#include "daemon/exchange.h"
#include "daemon/freshness.h"
#include "daemon/garbage.h"
#include "daemon/loop.h"
#include "daemon/messages.h"
#include "daemon/outbox.h"
#include "daemon/pause.h"
#include "daemon/positions.h"
#include "daemon/server.h"
#include "daemon/trainer.h"
#include "daemon/watchdog.h"
#include "ingest/codec.h"
#include "ingest/codec_status.h"
#include "ingest/kafka.h"
#include "ingest/publish.h"
#include "ingest/redis.h"
#include "ingest/sequence.h"

/* In this order, each entered once; a stop before the engine exists skips what needs it. */
enum m2sed_phase {
  M2SED_PHASE_STANDBY, /* another daemon holds the lease; nothing is made but that connection and HTTP */
  M2SED_PHASE_ITEMS,   /* reading the items topic up to its end; interactions are paused */
  M2SED_PHASE_RUNNING,
  M2SED_PHASE_DRAINING, /* nothing new is taken; what is under way comes to its end */
  M2SED_PHASE_FLUSHING, /* --until-end: the last mini-batch, and the epoch of its weights */
  M2SED_PHASE_SWEEPING, /* --until-end: every user's vector of that epoch */
  M2SED_PHASE_TRAINER,  /* the trainer stops, its last snapshot is written */
  M2SED_PHASE_SERVER,   /* the server stops */
  M2SED_PHASE_KAFKA,    /* leaving the group, dead letters and status go out */
  M2SED_PHASE_REDIS,
  M2SED_PHASE_CLOSED
};

/* A record of the interactions topic that the trainer has not been told of. They stand in the order in which
 * they were taken, and each leaves as one message, in that order: an event that is ready waits behind one
 * that is not (Redis has not answered, or Kafka not confirmed the dead letter). */
struct m2sed_event {
  struct m2sed_loop *loop;
  struct m2sed_train_message message; /* filled in as it becomes known */
  int64_t produced_ms;
  bool ready; /* waits for nothing but its turn */
  bool again; /* was taken before: only its sequence needs it */
  uint8_t user_size, event_id_size;
  char user[M2SE_ID_BYTES_MAX + 1], event_id[M2SE_ID_BYTES_MAX + 1];
};

/* A user whose vector the server was asked for. They stand in the order of the requests, which is that of the
 * answers and of the acknowledgements from Redis. */
struct m2sed_request {
  struct m2sed_loop *loop;
  bool done;
  uint8_t user_size;
  char user[M2SE_ID_BYTES_MAX + 1];
  uint32_t sequence_count;
  int64_t event_time_ms; /* of the newest event in the sequence */
  int64_t produced_ms;   /* -1: no event asks, the sweep does */
  int64_t ends_ms;       /* the sweep's: of the sequence, see m2se_publish_user; 0: an event renews it */
  /* The last of those that become readable with this one's vector, and the one before it; 0: none. */
  uint64_t covers;
};

enum {
  M2SED_REQUESTS = 1 << 14, /* users on their way; a power of two */
  M2SED_REQUESTS_FOR_EVENTS = M2SED_REQUESTS - (1 << 13),
  /* Messages that may wait while the trainer makes a step, long enough for several steps of a burst. */
  M2SED_TRAINER_RING = 1 << 13,
  /* Once the backlog is nearly full, each of them waits for a step of its own, before a stop too: few. */
  M2SED_TRAINER_RING_FULL = 1 << 9,
  M2SED_SERVER_RING = 1 << 12,
  M2SED_STATUS_REASONS = 16
};

struct m2sed_counts { /* since the start of the process */
  uint64_t received, replayed, lost, dead_lettered, items_received, items_deleted, items_dead_lettered,
      erasures;
  uint64_t refused[M2SE_RULE_COUNT_OF_ALL];
  uint64_t users_published, items_published, kafka_errors, rebalances, delivery_failures;
  uint64_t steps_applied, steps_refused, checkpoints, checkpoint_failures;
};

struct m2sed_loop {
  const struct m2sed_config *config;
  struct m2sed_log *log;
  struct m2sed_loop_options options;
  struct m2sed_loop_handles *handles; /* libuv's, loop.c */
  enum m2sed_phase phase;
  bool stop_asked, stop_at_once;
  int failure; /* of model/error.h; its text: */
  struct m2se_error failure_text;
  int64_t now_ms, started_ms, phase_since_ms, running_since_ms; /* wall clock, taken once a turn */

  /* Doors. */
  struct m2se_kafka *kafka;
  struct m2se_redis *redis;
  struct m2se_sequencer *sequencer;
  struct m2se_publisher *publisher;
  bool redis_closing;
  struct m2se_arena interaction_arena, item_arena, status_arena;

  /* The logs. */
  struct m2sed_positions *positions;
  uint32_t interaction_partitions; /* --until-end: how many must come to their end */
  int64_t item_partitions;         /* -1: not known yet */
  int64_t item_partitions_ended;
  bool interactions_paused; /* told to Kafka */
  int64_t full_since_ms;    /* since when nothing may be taken; 0: it may */
  struct m2sed_garbage garbage;
  struct m2sed_pause pause; /* by an operator; looked at once a second */
  struct m2sed_watchdog watchdog;
  const char *stuck; /* NULL: the threads answer */

  /* What is known. */
  struct m2sed_catalogue *catalogue;
  uint32_t feature_dim; /* 0: not known yet */
  char lineage[64];
  uint64_t fence;                          /* of the lease; 0: none */
  struct m2sed_checkpoint_state *restored; /* until the engine has been made */

  /* Under way. */
  struct m2sed_event *events; /* [events_capacity], a power of two */
  uint64_t events_capacity, events_first, events_end;
  struct m2sed_request *requests; /* [M2SED_REQUESTS] */
  uint64_t requests_first, requests_answered, requests_end;
  struct m2se_sequence *sequence; /* scratch of the sweep */

  /* The engine. */
  struct m2sed_exchange *exchange;
  struct m2sed_trainer *trainer;
  struct m2sed_server *server;
  struct m2sed_outbox to_trainer, to_server;
  bool engine_started, trainer_stopped, server_stopped;
  bool flushed;
  uint64_t flushed_step;

  /* Epochs (loop_epoch.c). */
  uint64_t epoch, epoch_step; /* that readers see; 0: none yet */
  bool epoch_known;           /* Redis has said which one was the last */
  uint64_t redis_epoch;
  uint64_t next_epoch, next_epoch_step; /* all its vectors have come; 0: none */
  uint64_t item_writes;                 /* not acknowledged */
  bool model_write;                     /* the model hash is on its way */
  int64_t epoch_begun_ms, epoch_since_ms;
  double epoch_publish_ms;

  struct m2sed_features *features; /* NULL: no text model */
  struct m2sed_standby *standby;   /* NULL: standby.lease_seconds is 0 */
  struct m2sed_sweep *sweep;
  struct m2sed_marker *marker;
  struct m2sed_letters *letters;
  struct m2sed_erasure *erasure;
  struct m2sed_checkpointer *checkpointer;
  struct m2sed_status_state *status;
  struct m2sed_loop_http *http;                 /* NULL: none */
  struct m2sed_recommendation *recommendations; /* [M2SED_RANKINGS_MAX]; with http only */

  /* Numbers. */
  struct m2sed_counts counts;
  struct m2sed_freshness freshness;
  struct m2sed_trained_message last_step; /* the newest report of the trainer */
  struct m2sed_prequential prequential;
  double loss_mean;
  int64_t last_step_ms, newest_event_ms;
  char kafka_error[256];
};

/* ---- loop.c ---- */
void m2sed_loop_wake(struct m2sed_loop *loop); /* any thread: another turn, soon */
/* The first failure counts: the loop drains, keeps what it can and ends with it. */
void m2sed_loop_fail(struct m2sed_loop *loop, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* May another record of the interactions topic be taken? */
bool m2sed_loop_has_room(const struct m2sed_loop *loop);
struct uv_loop_s *m2sed_loop_uv(struct m2sed_loop *loop);
void m2sed_loop_end(struct m2sed_loop *loop); /* closes the handles; the loop returns when they are gone */

/* ---- loop_start.c ---- */
int m2sed_loop_start(struct m2sed_loop *loop, struct m2se_error *error);
void m2sed_loop_free_parts(struct m2sed_loop *loop); /* what start made; threads have ended */

/* ---- loop_standby.c ---- */
/* Turns until the lease is held and the connections of others are ended (phase ITEMS), or it is to stop
 * (phase STANDBY). Without the setting: nothing to wait for. */
int m2sed_standby_wait(struct m2sed_loop *loop, struct m2se_error *error);
void m2sed_standby_tick(struct m2sed_loop *loop); /* every 100 ms: renews it */
/* Before something that blocks: with a full lease, if Redis answers within some turns. */
void m2sed_standby_renew(struct m2sed_loop *loop);
/* For the connection to Redis; NULL and nothing without a lease. */
const char *m2sed_standby_connection_name(const struct m2sed_loop *loop);
void m2sed_standby_add_guard(struct m2sed_loop *loop);
/* The checkpoint that we go on from is known: from here on what others wrote above it does not count. */
int m2sed_standby_begin(struct m2sed_loop *loop, struct m2se_error *error);
/* Another daemon is active: no drain, no checkpoint, nothing. */
void m2sed_loop_fenced(struct m2sed_loop *loop, const char *why);
void m2sed_standby_status(const struct m2sed_loop *loop, struct m2se_status_lease *status);
const char *m2sed_standby_reason(const struct m2sed_loop *loop); /* what a standby waits for */
/* Gives the lease back, once Redis is closed: whoever gets it ends connections of ours that are left. True:
 * all is closed; else it calls m2sed_loop_end later. */
bool m2sed_standby_close(struct m2sed_loop *loop);
void m2sed_standby_free(struct m2sed_loop *loop);

/* ---- loop_phase.c ---- */
void m2sed_loop_advance(struct m2sed_loop *loop); /* goes on to the next phase when its time has come */
const char *m2sed_phase_name(enum m2sed_phase phase);

/* ---- loop_event.c ---- */
void m2sed_loop_take_event(struct m2sed_loop *loop, const struct m2se_kafka_record *record);
/* Asks the server for a vector of what the spans name; evaluate: also rank `target` first. */
void m2sed_loop_events_verified(struct m2sed_loop *loop); /* loop_marker.c: the trainer may hear of more */
/* Forgets the events that the trainer has not heard of. False: some are still under way. */
bool m2sed_loop_forget_events(struct m2sed_loop *loop);
void m2sed_loop_user_served(struct m2sed_loop *loop, const struct m2sed_served_message *message);
void m2sed_loop_letter_confirmed(struct m2sed_loop *loop, struct m2sed_event *event); /* now it may count */
void m2sed_loop_request_user(struct m2sed_loop *loop, struct m2sed_serve_message *message, const char *user,
                             uint32_t user_size, const struct m2se_sequence *sequence, int64_t produced_ms,
                             int64_t ends_ms);

/* ---- loop_item.c ---- */
void m2sed_loop_take_item(struct m2sed_loop *loop, const struct m2se_kafka_record *record);
/* The slot of an id that an interaction or a sequence names; a new one is announced. M2SED_SLOT_NONE: full.
 */
uint32_t m2sed_loop_slot(struct m2sed_loop *loop, const char *id, uint32_t size);

/* Features that were computed: the item is as if its record had brought them. */
void m2sed_loop_item_rows(struct m2sed_loop *loop, uint32_t slot, const float *text, uint32_t text_count,
                          const float *image, uint32_t image_count);

/* ---- loop_features.c ---- all of it does nothing without a text model */
/* Loads the models, which says how wide features are, and starts the side thread. */
int m2sed_features_new(struct m2sed_loop *loop, struct m2se_error *error);
void m2sed_features_stop(struct m2sed_loop *loop); /* waits for the mini-batch in work */
void m2sed_features_free(struct m2sed_loop *loop);
/* A record without rows but with texts or pictures (true: its rows will come), or with rows (false). */
bool m2sed_features_take_item(struct m2sed_loop *loop, const struct m2se_item *item, uint32_t slot,
                              uint64_t version);
void m2sed_features_delete_item(struct m2sed_loop *loop, const char *id, uint32_t slot);
void m2sed_features_advance(struct m2sed_loop *loop);    /* every turn */
bool m2sed_features_full(const struct m2sed_loop *loop); /* no item may be taken */
/* All that is known of the items that were read has been told; with --until-end, all is computed. */
bool m2sed_features_settled(const struct m2sed_loop *loop);
void m2sed_features_status(struct m2sed_loop *loop, struct m2se_status_features *status);
const char *m2sed_features_reason(const struct m2sed_loop *loop); /* for the status; NULL: all is well */

/* ---- loop_engine.c ---- */
int m2sed_loop_make_engine(struct m2sed_loop *loop, struct m2se_error *error); /* feature_dim is known */
void m2sed_loop_start_engine(struct m2sed_loop *loop);
void m2sed_loop_to_trainer(struct m2sed_loop *loop, const struct m2sed_train_message *message);
void m2sed_loop_to_server(struct m2sed_loop *loop, const struct m2sed_serve_message *message);
void m2sed_loop_take_answers(struct m2sed_loop *loop);
/* What the guard has to say while refused_in_a_row is not 0, for people. */
void m2sed_guard_reason(const struct m2sed_loop *loop, char *text, size_t size);

/* ---- loop_epoch.c ---- */
void m2sed_loop_items_served(struct m2sed_loop *loop, const struct m2sed_served_message *message);
void m2sed_loop_epoch_served(struct m2sed_loop *loop, const struct m2sed_served_message *message);
void m2sed_loop_ask_epoch(struct m2sed_loop *loop); /* the last one that Redis has seen */

/* ---- loop_sweep.c ---- */
int m2sed_sweep_new(struct m2sed_loop *loop);
void m2sed_sweep_free(struct m2sed_loop *loop);
void m2sed_sweep_tick(struct m2sed_loop *loop);        /* every 100 ms: as many users as the setting allows */
void m2sed_sweep_everybody(struct m2sed_loop *loop);   /* from the first user on, as fast as it goes */
bool m2sed_sweep_reads(const struct m2sed_loop *loop); /* a sequence that was read may become a vector */
bool m2sed_sweep_is_done(const struct m2sed_loop *loop);

/* ---- loop_marker.c ---- */
int m2sed_marker_new(struct m2sed_loop *loop);
void m2sed_marker_free(struct m2sed_loop *loop);
int m2sed_marker_begin(struct m2sed_loop *loop, struct m2se_error *error); /* asks each connection */
bool m2sed_marker_known(const struct m2sed_loop *loop);                    /* partitions may be started */
bool m2sed_marker_busy(const struct m2sed_loop *loop);                     /* no record may be taken */
bool m2sed_marker_catching_up(const struct m2sed_loop *loop);  /* lost sequences are being made again */
void m2sed_marker_advance(struct m2sed_loop *loop);            /* every turn, behind what was taken in it */
uint64_t m2sed_marker_verified(const struct m2sed_loop *loop); /* events before this number may be trained */
void m2sed_marker_move(struct m2sed_loop *loop);               /* once a second and with each checkpoint */

/* ---- loop_letter.c ---- */
int m2sed_letters_new(struct m2sed_loop *loop);
void m2sed_letters_free(struct m2sed_loop *loop);
/* A record that cannot be used goes to <topic>.dlq as it came. event (NULL: none waits) is told by
 * m2sed_loop_letter_confirmed once Kafka has it. */
void m2sed_letters_send(struct m2sed_loop *loop, const struct m2se_kafka_record *record,
                        struct m2sed_event *event, const char *stage, const char *rule, const char *reason);
void m2sed_letters_delivered(struct m2sed_loop *loop, const struct m2se_kafka_delivery *delivery);
void m2sed_letters_tick(struct m2sed_loop *loop);
bool m2sed_letters_full(const struct m2sed_loop *loop);
uint32_t m2sed_letters_open(const struct m2sed_loop *loop); /* not delivered */
const char *m2sed_letters_reason(struct m2sed_loop *loop);  /* for the status; NULL: all is well */

/* ---- loop_erasure.c ---- */
int m2sed_erasure_new(struct m2sed_loop *loop);
void m2sed_erasure_free(struct m2sed_loop *loop);
int64_t m2sed_erasure_start(struct m2sed_loop *loop, const struct m2se_kafka_start *at);
void m2sed_erasure_take(struct m2sed_loop *loop, const struct m2se_kafka_record *record);
void m2sed_erasure_advance(struct m2sed_loop *loop);       /* once a turn */
bool m2sed_erasure_busy(const struct m2sed_loop *loop);    /* one is not done */
bool m2sed_erasure_deletes(const struct m2sed_loop *loop); /* half done: no snapshot may be asked for */
bool m2sed_erasure_blocks(const struct m2sed_loop *loop);  /* for it, nothing new may be taken now */

/* ---- loop_checkpoint.c ---- */
int m2sed_checkpointer_new(struct m2sed_loop *loop);
void m2sed_checkpointer_free(struct m2sed_loop *loop);
void m2sed_checkpointer_tick(struct m2sed_loop *loop); /* asks for one when it is time */
void m2sed_checkpointer_ask(struct m2sed_loop *loop);  /* as soon as possible */
void m2sed_checkpointer_take(struct m2sed_loop *loop, struct m2sed_checkpoint_state *snapshot,
                             double stall_ms);
bool m2sed_checkpointer_waits(const struct m2sed_loop *loop); /* the trainer owes a snapshot */
bool m2sed_checkpointer_busy(const struct m2sed_loop *loop);  /* something is still to be written */
void m2sed_checkpointer_status(const struct m2sed_loop *loop, struct m2se_status_checkpoint *status);

/* ---- loop_status.c ---- */
int m2sed_status_new(struct m2sed_loop *loop);
void m2sed_status_free(struct m2sed_loop *loop);
void m2sed_status_count_user(struct m2sed_loop *loop,
                             uint64_t user_hash);                 /* for the estimate of active users */
void m2sed_status_count_turn(struct m2sed_loop *loop, double ms); /* how long one turn took */
void m2sed_status_publish(struct m2sed_loop *loop);
/* The one published last, and how many there were; NULL and 0 before the first. Good until the next. */
const struct m2se_status *m2sed_status_newest(const struct m2sed_loop *loop, uint64_t *number);

/* ---- loop_http.c ---- */
/* Listens on http.listen; does nothing if that is empty. An address in use is tried again: the daemon does
 * its work without HTTP. M2SE_EINVAL, M2SE_EIO: no address. */
int m2sed_loop_http_new(struct m2sed_loop *loop, struct m2se_error *error);
void m2sed_loop_http_second(struct m2sed_loop *loop); /* once a second */
void m2sed_loop_http_stop(struct m2sed_loop *loop);   /* before the handles of the loop are closed */
void m2sed_loop_http_free(struct m2sed_loop *loop);

/* ---- loop_recommend.c, behind loop_http.c ---- */
struct m2sed_http_request;
struct m2sed_http_exchange;
int m2sed_recommendations_new(struct m2sed_loop *loop);
void m2sed_recommendations_free(struct m2sed_loop *loop);
void m2sed_loop_recommend(struct m2sed_loop *loop, const struct m2sed_http_request *request,
                          struct m2sed_http_exchange *exchange);
void m2sed_loop_recommended(struct m2sed_ranking *ranking); /* the server has answered */
/* Those that wait for too long, or all, are told so. */
void m2sed_recommendations_expire(struct m2sed_loop *loop, bool all);

#endif
