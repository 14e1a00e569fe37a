/* A simulator of everything around the daemon: clock, threads, Kafka, Redis, kills. One seed is one schedule.
 *
 * DESIGN. The daemon's own code (loop*.c and all below it) runs over fakes of its doors: ingest/kafka.h
 * (sim_kafka.c), ingest/redis.h (sim_redis.c), the functions of libuv and libc that it calls (sim_clock.c).
 * Checkpoints are real files. Time only moves when the simulator says so, and the two threads are coroutines
 * that it resumes when it likes, so that a schedule is a function of its seed alone. A life of the daemon is
 * a child process, which a kill ends with _exit; what outlives it lies in shared memory (struct sim_world).
 */
#ifndef SIM_H
#define SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ingest/kafka.h"

enum {
  SIM_PARTITIONS_MAX = 4,
  SIM_RECORDS_MAX = 512, /* of a partition */
  SIM_VALUE_MAX = 400,
  SIM_USERS = 10,
  SIM_ITEMS = 16,
  SIM_DIM = 8, /* of features */
  SIM_SEQUENCE_BYTES = 20000,
  SIM_FIELDS_MAX = 400,
  SIM_EPOCHS_MAX = 4096,
  SIM_TRACES = 60,
  SIM_KILLED = 42, /* exit code of a life that was killed */
  SIM_AGAIN = 44,  /* of one that the daemon itself ended, to begin again */
  SIM_STUCK = 43   /* and of one that came to no end */
};

struct sim_record {
  int64_t at_ms; /* from then on it is in the log; its timestamp too */
  bool gap;      /* of a transaction that was aborted: its offset is never handed over */
  bool garbage;
  bool deletion;      /* of an item: no value */
  uint8_t user, item; /* of an interaction; of an item's record the latter */
  uint16_t event_id;  /* 0: none */
  uint16_t key_size, value_size;
  char key[8];
  uint8_t value[SIM_VALUE_MAX];
};

struct sim_log {
  uint32_t count;
  int64_t committed;
  struct sim_record records[SIM_RECORDS_MAX];
};

struct sim_redis_data {
  struct {
    uint32_t size; /* 0: none */
    uint8_t blob[SIM_SEQUENCE_BYTES];
  } sequences[SIM_USERS];
  struct sim_field { /* strings too: their field is "" */
    char key[24], field[12];
    uint32_t size;
    char value[256];
  } fields[SIM_FIELDS_MAX];
  uint32_t field_count;
  uint64_t sequences_told; /* answers delivered so far */
};

struct sim_faults { /* chances, of 1000 */
  uint32_t connection_lost, refused, crash, flush, rebalance, delivery_fails, late_letter, work;
  uint32_t trainer_runs, server_runs; /* chance of a thread to be resumed in a turn */
};

struct sim_world {
  uint64_t seed, random;
  bool verbose;
  int64_t now_ms;
  uint64_t turns_left;      /* of this life, then it is killed; UINT64_MAX: never */
  uint64_t file_calls_left; /* likewise, calls that change the checkpoint folder */
  uint64_t stop_in;         /* turns until SIGTERM; UINT64_MAX: never */
  struct sim_faults faults;

  /* The schedule. */
  uint32_t partitions;
  bool late_items, deletions, all_featured;
  uint32_t keep, batch, backlog, parking, parking_events, reservoir, length, epoch_steps, in_flight;
  bool shrink;
  struct sim_log interactions[SIM_PARTITIONS_MAX], items;

  /* What outlives the daemon. */
  struct sim_redis_data redis, saved;
  char marker_told[256];               /* what the daemon last heard that it is */
  bool lost_data;                      /* in this life */
  uint64_t newest_epoch, unsure_epoch; /* up to the latter one Redis may have lost vectors */
  uint16_t letters[SIM_PARTITIONS_MAX][SIM_RECORDS_MAX]; /* dead letters of a record that Kafka has */
  uint64_t epoch_steps_of[SIM_EPOCHS_MAX];               /* epoch -> step of its weights */
  uint32_t trace_next;
  char traces[SIM_TRACES][160];
  char failure[256]; /* the first broken invariant; "": none */
};

extern struct sim_world *sim; /* in shared memory */

/* ---- sim.c ---- */
uint64_t sim_draw(uint64_t below); /* 0 .. below - 1 */
bool sim_chance(uint32_t of_1000);
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* An invariant is broken: the life ends. */
void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* ---- sim_clock.c ---- */
void sim_threads_begin(void); /* a new life */

/* ---- the doors: another moment has passed ---- */
void sim_kafka_turn(void); /* sim_kafka.c */
void sim_redis_turn(void); /* sim_redis.c; replies come from here */

/* ---- sim_schedule.c ---- */
void sim_make_schedule(uint64_t seed); /* fills *sim */
void sim_draw_faults(void);

/* ---- sim_check.c ---- */
/* What the last checkpoint in `dir` and Redis hold, against what the log says. "" or what is wrong. */
const char *sim_check(const char *dir);
const char *sim_compare(const char *dir, const char *undisturbed_dir);

#endif
