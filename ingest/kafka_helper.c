/* One thread that blocks in the place of the loop: it asks questions and destroys handles.
 *
 * Urgent questions (what the start of a partition waits for) go before those of refresh. The struct belongs
 * to the client until _end; left behind, it belongs to the thread, which frees it when it gets that far.
 */
#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <librdkafka/rdkafka.h>

#include "ingest/kafka_parts.h"

enum { ASK_MS = 2000, HANDLES_MAX = 3 };

struct list {
  struct m2se_kafka_question *first, **end;
};

struct m2se_kafka_helper {
  pthread_t thread;
  pthread_mutex_t lock; /* of everything below that changes */
  pthread_cond_t changed;
  rd_kafka_t *ranges, *metadata;
  char *topics[M2SE_KAFKA_TOPICS];
  void (*wake)(void *arg); /* NULL when the client is gone */
  void *arg;

  struct list urgent, later, answers;
  char *cluster_id;
  rd_kafka_t *doomed[HANDLES_MAX];
  uint32_t doomed_count, destroyed_count;
  bool forgetful, stop, left_behind;
};

static void list_clear(struct list *list) {
  while (list->first) {
    struct m2se_kafka_question *question = list->first;
    list->first = question->next;
    free(question);
  }
  list->end = &list->first;
}

static void list_put(struct list *list, struct m2se_kafka_question *question) {
  question->next = NULL;
  *list->end = question;
  list->end = &question->next;
}

/* The first question whose time has come; else *due_ms becomes earlier if one of these comes earlier. */
static struct m2se_kafka_question *list_take(struct list *list, int64_t now_ms, int64_t *due_ms) {
  for (struct m2se_kafka_question **link = &list->first; *link; link = &(*link)->next) {
    struct m2se_kafka_question *question = *link;
    if (question->due_ms <= now_ms) {
      *link = question->next;
      if (!*link)
        list->end = link;
      return question;
    }
    if (question->due_ms < *due_ms)
      *due_ms = question->due_ms;
  }
  return NULL;
}

static void helper_free(struct m2se_kafka_helper *helper) {
  list_clear(&helper->urgent);
  list_clear(&helper->later);
  list_clear(&helper->answers);
  for (int i = 0; i < M2SE_KAFKA_TOPICS; i++)
    free(helper->topics[i]);
  free(helper->cluster_id);
  pthread_cond_destroy(&helper->changed);
  pthread_mutex_destroy(&helper->lock);
  free(helper);
}

static int ask_cluster(struct m2se_kafka_helper *helper) {
  if (helper->cluster_id) /* only this thread writes it */
    return 0;
  char *id = m2se_kafka_ask_cluster(helper->ranges, ASK_MS);
  pthread_mutex_lock(&helper->lock);
  helper->cluster_id = id;
  pthread_mutex_unlock(&helper->lock);
  return id ? 0 : RD_KAFKA_RESP_ERR__TIMED_OUT;
}

static void ask(struct m2se_kafka_helper *helper, struct m2se_kafka_question *question) {
  const char *topic = helper->topics[question->topic];
  switch (question->ask) {
  case M2SE_KAFKA_ASK_CLUSTER:
    question->code = ask_cluster(helper);
    break;
  case M2SE_KAFKA_ASK_ITEMS:
    question->code = m2se_kafka_ask_partitions(helper->metadata, topic, ASK_MS, &question->partitions);
    break;
  case M2SE_KAFKA_ASK_START:
    question->code = ask_cluster(helper); /* the owner decides by it where to start */
    for (uint32_t i = 0; i < question->count; i++)
      question->asked[i].code = question->code;
    if (question->code)
      break;
    /* fallthrough */
  case M2SE_KAFKA_ASK_REFRESH:
    question->code = m2se_kafka_ask_offsets(helper->ranges, topic, question->asked, question->count,
                                            question->since_ms, ASK_MS);
    break;
  }
}

static void wait_until(struct m2se_kafka_helper *helper, int64_t due_ms) {
  const struct timespec due = {.tv_sec = due_ms / 1000, .tv_nsec = due_ms % 1000 * 1000000};
  if (due_ms == INT64_MAX)
    pthread_cond_wait(&helper->changed, &helper->lock);
  else
    pthread_cond_timedwait(&helper->changed, &helper->lock, &due);
}

/* Locked before and after. */
static void work(struct m2se_kafka_helper *helper) {
  int64_t due_ms = INT64_MAX;
  if (helper->destroyed_count < helper->doomed_count) {
    rd_kafka_t *handle = helper->doomed[helper->destroyed_count];
    pthread_mutex_unlock(&helper->lock);
    /* The consumers have been closed, or did not get that far in their time. */
    rd_kafka_destroy_flags(handle, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    pthread_mutex_lock(&helper->lock);
    helper->destroyed_count++;
  } else {
    struct m2se_kafka_question *question = list_take(&helper->urgent, m2se_kafka_now_ms(), &due_ms);
    if (!question)
      question = list_take(&helper->later, m2se_kafka_now_ms(), &due_ms);
    if (!question) {
      wait_until(helper, due_ms);
      return;
    }
    pthread_mutex_unlock(&helper->lock);
    ask(helper, question);
    pthread_mutex_lock(&helper->lock);
    list_put(&helper->answers, question);
  }
  if (helper->wake)
    helper->wake(helper->arg);
}

static void *run(void *arg) {
  struct m2se_kafka_helper *helper = arg;
  pthread_mutex_lock(&helper->lock);
  while (!helper->stop)
    work(helper);
  bool left_behind = helper->left_behind;
  pthread_mutex_unlock(&helper->lock);
  if (left_behind)
    helper_free(helper);
  return NULL;
}

int m2se_kafka_helper_new(struct m2se_kafka_helper **out, rd_kafka_t *ranges, rd_kafka_t *metadata,
                          char *const topics[M2SE_KAFKA_TOPICS], void (*wake)(void *arg), void *arg,
                          struct m2se_error *error) {
  struct m2se_kafka_helper *helper = calloc(1, sizeof *helper);
  if (!helper)
    return m2se_error_set(error, M2SE_ENOMEM, "the helper thread");
  helper->ranges = ranges;
  helper->metadata = metadata;
  helper->wake = wake;
  helper->arg = arg;
  list_clear(&helper->urgent);
  list_clear(&helper->later);
  list_clear(&helper->answers);
  pthread_mutex_init(&helper->lock, NULL);
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&helper->changed, &monotonic);
  pthread_condattr_destroy(&monotonic);
  int code = 0;
  for (int i = 0; i < M2SE_KAFKA_TOPICS && !code; i++)
    if (topics[i] && !(helper->topics[i] = strdup(topics[i])))
      code = m2se_error_set(error, M2SE_ENOMEM, "the helper thread");
  int refused = code ? 0 : pthread_create(&helper->thread, NULL, run, helper);
  if (refused)
    code = m2se_error_set(error, M2SE_EIO, "the helper thread: %s", strerror(refused));
  if (code)
    helper_free(helper);
  else
    *out = helper;
  return code;
}

void m2se_kafka_helper_put(struct m2se_kafka_helper *helper, struct m2se_kafka_question *question) {
  pthread_mutex_lock(&helper->lock);
  if (helper->forgetful)
    free(question);
  else
    list_put(question->ask == M2SE_KAFKA_ASK_REFRESH ? &helper->later : &helper->urgent, question);
  pthread_cond_signal(&helper->changed);
  pthread_mutex_unlock(&helper->lock);
}

struct m2se_kafka_question *m2se_kafka_helper_answers(struct m2se_kafka_helper *helper) {
  pthread_mutex_lock(&helper->lock);
  struct m2se_kafka_question *first = helper->answers.first;
  helper->answers.first = NULL;
  list_clear(&helper->answers);
  pthread_mutex_unlock(&helper->lock);
  return first;
}

char *m2se_kafka_helper_cluster(struct m2se_kafka_helper *helper) {
  pthread_mutex_lock(&helper->lock);
  char *copy = helper->cluster_id ? strdup(helper->cluster_id) : NULL;
  pthread_mutex_unlock(&helper->lock);
  return copy;
}

void m2se_kafka_helper_forget(struct m2se_kafka_helper *helper) {
  pthread_mutex_lock(&helper->lock);
  helper->forgetful = true;
  list_clear(&helper->urgent);
  list_clear(&helper->later);
  pthread_mutex_unlock(&helper->lock);
}

void m2se_kafka_helper_destroy(struct m2se_kafka_helper *helper, rd_kafka_t *handle) {
  pthread_mutex_lock(&helper->lock);
  assert(helper->doomed_count < HANDLES_MAX);
  helper->doomed[helper->doomed_count++] = handle;
  pthread_cond_signal(&helper->changed);
  pthread_mutex_unlock(&helper->lock);
}

bool m2se_kafka_helper_idle(struct m2se_kafka_helper *helper) {
  pthread_mutex_lock(&helper->lock);
  bool idle = helper->destroyed_count == helper->doomed_count;
  pthread_mutex_unlock(&helper->lock);
  return idle;
}

void m2se_kafka_helper_end(struct m2se_kafka_helper *helper, bool wait) {
  pthread_t thread = helper->thread;
  pthread_mutex_lock(&helper->lock);
  helper->stop = true;
  helper->left_behind = !wait;
  helper->wake = NULL;
  pthread_cond_signal(&helper->changed);
  pthread_mutex_unlock(&helper->lock); /* left behind, it may be gone from here on */
  if (!wait) {
    pthread_detach(thread);
    return;
  }
  pthread_join(thread, NULL);
  helper_free(helper);
}
