/* What the files of the Kafka client share. See kafka.h for the design; one subject a file, in the order of
 * reading:
 *   kafka.c           life: handles, poll, close
 *   kafka_settings.c  properties, and the errors and logs of a handle
 *   kafka_group.c     partitions that come and go, commits
 *   kafka_start.c     where a partition starts
 *   kafka_consume.c   records, pauses
 *   kafka_partition.c the table of partitions, and what librdkafka is told about one
 *   kafka_produce.c   messages until their delivery is known
 *   kafka_ask.c       questions that block
 *   kafka_helper.c    the thread that asks them
 *   kafka_topic.c     making topics
 *
 * The life of a partition: ours (its low and high are asked) -> started (the owner said where; it is put into
 * librdkafka's assignment) -> not ours. From the second it can go back to the question, when its offset is
 * out of range.
 */
#ifndef M2SE_KAFKA_PARTS_H
#define M2SE_KAFKA_PARTS_H

#include "ingest/kafka.h"

/* Of librdkafka, whose header stays out of ours. Its error codes are int here. */
struct rd_kafka_s;
struct rd_kafka_conf_s;
struct rd_kafka_queue_s;
struct rd_kafka_message_s;
struct rd_kafka_error_s;
struct rd_kafka_topic_partition_list_s;

/* ---- Questions: blocking, any thread; 0 or librdkafka's code ---- */

/* What is asked about one partition, and the answer. */
struct m2se_kafka_asked {
  int32_t partition;
  uint64_t serial; /* of its assignment: the answer to an older one is void */
  int code;
  int64_t low, high;
  int64_t by_time; /* first record of that time or later; high: there is none. Only where it was asked */
};
/* Of one topic. since_ms -1: by_time is not asked. Returns the code of the last one that has one. */
int m2se_kafka_ask_offsets(struct rd_kafka_s *handle, const char *topic, struct m2se_kafka_asked *asked,
                           uint32_t count, int64_t since_ms, int timeout_ms);
/* The code says that a broker answered, if only with an error. */
bool m2se_kafka_is_answer(int code);
/* Number of partitions; they are 0 .. count - 1. A consumer's handle: a producer's would create the topic. */
int m2se_kafka_ask_partitions(struct rd_kafka_s *handle, const char *topic, int timeout_ms, int32_t *count);
/* For free(); NULL: no answer. */
char *m2se_kafka_ask_cluster(struct rd_kafka_s *handle, int timeout_ms);

/* ---- The helper thread ---- */

enum m2se_kafka_ask {
  M2SE_KAFKA_ASK_CLUSTER,
  M2SE_KAFKA_ASK_ITEMS, /* of erasures too */
  M2SE_KAFKA_ASK_START,
  M2SE_KAFKA_ASK_REFRESH
};

struct m2se_kafka_question {
  struct m2se_kafka_question *next;
  enum m2se_kafka_ask ask;
  enum m2se_kafka_topic topic;
  uint32_t attempt;   /* of the same question: 0, 1, ... */
  int64_t due_ms;     /* not asked earlier */
  int64_t since_ms;   /* start of timestamps, or -1 */
  int code;           /* the answer, or of START and REFRESH the last one that is no success */
  int32_t partitions; /* the answer of ITEMS */
  uint32_t count;     /* START, REFRESH */
  struct m2se_kafka_asked asked[];
};

struct m2se_kafka_helper;
/* `ranges` answers about offsets, `metadata` about topics. Copies the names; wake may be NULL. M2SE_EIO: no
 * thread. */
int m2se_kafka_helper_new(struct m2se_kafka_helper **helper, struct rd_kafka_s *ranges,
                          struct rd_kafka_s *metadata, char *const topics[M2SE_KAFKA_TOPICS],
                          void (*wake)(void *arg), void *arg, struct m2se_error *error);
/* Takes the question. It comes back from _answers, with the answer, once, unless the helper forgets. */
void m2se_kafka_helper_put(struct m2se_kafka_helper *helper, struct m2se_kafka_question *question);
/* A list to be freed one by one, in the order of the answers; NULL: none. */
struct m2se_kafka_question *m2se_kafka_helper_answers(struct m2se_kafka_helper *helper);
/* A copy for free(), NULL as long as it is not known. Known before the first answer of START. */
char *m2se_kafka_helper_cluster(struct m2se_kafka_helper *helper);
/* Drops all questions and takes no more. */
void m2se_kafka_helper_forget(struct m2se_kafka_helper *helper);
/* Destroys the handle after what it does now. At most three. */
void m2se_kafka_helper_destroy(struct m2se_kafka_helper *helper, struct rd_kafka_s *handle);
bool m2se_kafka_helper_idle(struct m2se_kafka_helper *helper); /* every such handle is gone */
/* Waits for the thread and frees, if wait. Else leaves both behind, to end when what blocks ends. Either way
 * `wake` is not called any more. */
void m2se_kafka_helper_end(struct m2se_kafka_helper *helper, bool wait);

/* ---- The client ---- */

struct m2se_kafka_partition {
  enum m2se_kafka_topic topic;
  int32_t number;
  bool ours;     /* given by the group, or found by metadata */
  bool started;  /* the owner said where: its records come, and revoked at the end */
  bool assigned; /* in librdkafka's assignment */
  bool pause;    /* the owner's wish; kept while the partition is not ours */
  bool ended;    /* end was called */
  bool commit_waits;
  uint64_t serial;
  int64_t commit; /* the newest offset to be committed */
  int64_t next;   /* of the records, the first that has not been handed over */
  int64_t wanted; /* while it is out of range; else -1 */
  int64_t end;    /* high of the start */
  int64_t low, high;
  struct rd_kafka_message_s *held; /* came against that wish; librdkafka then pauses the partition */
};

struct m2se_kafka_reader {
  struct rd_kafka_s *handle;
  struct rd_kafka_queue_s *queue;
  bool refused;   /* to close: it failed for good */
  bool to_resume; /* some partitions may hold a record without a wish */
};

struct m2se_kafka_topic_state {
  char *name; /* NULL: not read */
  struct m2se_kafka_reader *reader;
  struct m2se_kafka_partition **partitions; /* NULL where nothing is known */
  int32_t partition_count;
  bool pause; /* of those that are assigned later */
};

struct m2se_kafka_unsent {
  struct m2se_kafka_unsent *previous, *next;
  void *opaque;
};

struct m2se_kafka {
  struct m2se_kafka_callbacks callbacks;
  enum m2se_kafka_start_policy start;
  int64_t start_ms;
  struct m2se_kafka_topic_state topics[M2SE_KAFKA_TOPICS];
  struct m2se_kafka_reader readers[2]; /* group, items */
  struct rd_kafka_s *producer;
  struct rd_kafka_queue_s *producer_queue;
  struct m2se_kafka_helper *helper;
  char *cluster_id;
  uint64_t serial;
  uint32_t refreshing; /* questions of refresh under way */
  int64_t quiet_ms;    /* no report of a question before */
  bool reachable;
  bool erasures_there, subscribed;
  bool commits_wait; /* of some partition */
  bool items_first;  /* whose turn it is */
  bool stopped;      /* by the owner, in this poll */
  bool polling, failed;

  struct m2se_kafka_unsent *unsent;
  uint32_t unsent_count;

  bool closing, purged, closed;
  int64_t patience_ms, deadline_ms;
};

enum { M2SE_KAFKA_GROUP_READER, M2SE_KAFKA_ITEMS_READER };

int64_t m2se_kafka_now_ms(void); /* monotonic */

/* kafka_settings.c */
/* M2SE_EINVAL names the property; M2SE_EIO. */
enum m2se_kafka_kind { M2SE_KAFKA_KIND_GROUP, M2SE_KAFKA_KIND_ITEMS, M2SE_KAFKA_KIND_PRODUCER };
int m2se_kafka_handle_new(struct rd_kafka_s **handle, struct m2se_kafka *kafka, enum m2se_kafka_kind kind,
                          const struct m2se_kafka_settings *settings, struct m2se_error *error);
void m2se_kafka_report(struct m2se_kafka *kafka, struct rd_kafka_s *handle, int code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Of a call, and destroys it; NULL: nothing. */
void m2se_kafka_report_error(struct m2se_kafka *kafka, struct rd_kafka_s *handle,
                             struct rd_kafka_error_s *error, const char *what);
void m2se_kafka_out_of_memory(struct m2se_kafka *kafka);

/* kafka_partition.c */
struct m2se_kafka_partition *m2se_kafka_partition_of(const struct m2se_kafka *kafka,
                                                     enum m2se_kafka_topic topic, int32_t number);
/* The same, made if needed; NULL: out of memory, told. */
struct m2se_kafka_partition *m2se_kafka_partition_make(struct m2se_kafka *kafka, enum m2se_kafka_topic topic,
                                                       int32_t number);
/* Which of the reader's topics; M2SE_KAFKA_TOPICS: none. */
enum m2se_kafka_topic m2se_kafka_topic_named(const struct m2se_kafka *kafka,
                                             const struct m2se_kafka_reader *reader, const char *name);
void m2se_kafka_partition_assign(struct m2se_kafka *kafka, struct m2se_kafka_partition *partition,
                                 int64_t offset);
void m2se_kafka_partition_unassign(struct m2se_kafka *kafka, struct m2se_kafka_partition *partition);
void m2se_kafka_partition_set_paused(struct m2se_kafka *kafka, struct m2se_kafka_partition *partition,
                                     bool paused);
/* Calls `end`, if it is due: all records before position have been handed over. */
void m2se_kafka_partition_end_if_read(struct m2se_kafka *kafka, struct m2se_kafka_partition *partition,
                                      int64_t position);
/* Of the record in hand, and of librdkafka's pause that came with it. */
void m2se_kafka_partition_let_go(struct m2se_kafka *kafka, struct m2se_kafka_partition *partition);
/* No longer ours: calls `revoked`, if it was started. librdkafka's assignment is the caller's to change. */
void m2se_kafka_partition_drop(struct m2se_kafka *kafka, struct m2se_kafka_partition *partition, bool lost);

/* kafka_group.c */
void m2se_kafka_set_group_callbacks(struct rd_kafka_conf_s *conf);
/* What librdkafka's statistics (JSON) say: the coordinator has been connected for a while, and there is no
 * rebalance. */
bool m2se_kafka_group_is_steady(const char *statistics);
/* Those that wait; harmless only while the group is not in a rebalance, or is left anyway. */
void m2se_kafka_send_commits(struct m2se_kafka *kafka);
/* To erasures only if they are there: a member that waits for a topic comes late to every rebalance, and is
 * thrown out. */
int m2se_kafka_subscribe(struct m2se_kafka *kafka, struct m2se_error *error);
/* Nothing of the reader is read any more: revokes what is still started, and lets go of what is in hand, for
 * which librdkafka would wait for ever. */
void m2se_kafka_drop(struct m2se_kafka *kafka, const struct m2se_kafka_reader *reader);

/* kafka_start.c */
/* The cluster's id, the partitions of items, and whether there are erasures. */
void m2se_kafka_ask_first(struct m2se_kafka *kafka);
void m2se_kafka_take_answers(struct m2se_kafka *kafka);
/* Those of the topic in the list become ours. */
void m2se_kafka_take_partitions(struct m2se_kafka *kafka, enum m2se_kafka_topic topic,
                                const struct rd_kafka_topic_partition_list_s *list);
/* Out of range: `wanted` was asked for. */
void m2se_kafka_start_again(struct m2se_kafka *kafka, struct m2se_kafka_partition *partition, int64_t wanted);

/* kafka_consume.c */
/* Hands over at most *left records, and counts it down. */
void m2se_kafka_read(struct m2se_kafka *kafka, struct m2se_kafka_reader *reader, uint32_t *left);

/* kafka_produce.c */
void m2se_kafka_set_producer_callbacks(struct rd_kafka_conf_s *conf);
void m2se_kafka_give_up_unsent(struct m2se_kafka *kafka);

#endif
