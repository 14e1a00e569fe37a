#include "daemon/features/side.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/features/side_record.h"
#include "daemon/pool.h"

enum {
  TAKEN_MAX = 64,     /* records of a turn */
  LOOKED_AT_MAX = 64, /* items of which something can be computed now */
  SCANNED_MAX = 4096, /* those that wait for another attempt included */
  RESULTS_MAX = 256,  /* that the loop has not taken */
  NAP_MS = 1000,      /* attempts that are due are noticed so late */
  HELPER_REST_MS = 5000,
  PATH_NAME_MAX = M2SE_IMAGE_PATH_BYTES_MAX + 64, /* size and time of change included */
};

struct job { /* one mini-batch of texts, or one picture */
  uint32_t count;
  enum m2sed_content_kind kind;
  struct m2sed_embed_text views[M2SED_SIDE_TEXTS_MAX];
  uint8_t digests[M2SED_SIDE_TEXTS_MAX][M2SED_DIGEST_BYTES];
  uint32_t attempts; /* of a job of one */
};

struct m2sed_side {
  struct m2sed_side_settings settings;
  struct m2sed_embedder embedder;
  struct m2sed_store *store;
  struct m2sed_pictures *pictures; /* NULL: no image model */
  struct m2sed_ring *in, *out;     /* of struct m2sed_side_record *, struct m2sed_side_result * */
  struct m2sed_waker waker;
  struct m2sed_notify room;
  atomic_bool stop, refused;  /* refused: the loop waits to be told of room */
  atomic_uint_fast64_t bytes; /* of what was offered */
  pthread_t thread;
  bool started;
  int64_t helper_not_before_ms;
  float *rows; /* [M2SED_SIDE_TEXTS_MAX, dim] */
  struct job job;
  struct m2sed_store_item item;
  struct m2sed_content contents[M2SED_STORE_CONTENTS_MAX];
  char names[M2SE_ITEM_IMAGES_MAX][PATH_NAME_MAX];
  struct m2sed_side_counters counters;
  pthread_mutex_t shown_lock;
  struct m2sed_side_counters shown;
};

static int64_t now_ms(void) { /* of the wall clock: attempts survive a restart */
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int m2sed_side_new(struct m2sed_side **out, const struct m2sed_side_settings *settings,
                   const struct m2sed_embedder *embedder, struct m2se_error *error) {
  assert(embedder->dim >= 1 && embedder->dim <= M2SED_STORE_DIM_MAX && embedder->texts);
  *out = NULL;
  struct m2sed_side *side = calloc(1, sizeof *side);
  if (!side) {
    return m2se_error_set(error, M2SE_ENOMEM, "features: out of memory");
  }
  side->settings = *settings;
  side->embedder = *embedder;
  pthread_mutex_init(&side->shown_lock, NULL);
  side->rows = calloc((size_t)M2SED_SIDE_TEXTS_MAX * embedder->dim, sizeof *side->rows);
  int code = side->rows ? 0 : M2SE_ENOMEM;
  code = code ? code : m2sed_ring_new(&side->in, settings->records_max, sizeof(void *));
  code = code ? code : m2sed_ring_new(&side->out, RESULTS_MAX, sizeof(void *));
  if (code != 0) {
    m2sed_side_free(side);
    return m2se_error_set(error, code, "features: out of memory");
  }
  m2sed_ring_on_message(side->in, m2sed_waker_notify(&side->waker));
  code = m2sed_store_open(&side->store, &settings->store, error);
  if (code == 0 && embedder->picture) {
    code = m2sed_pictures_open(&side->pictures, &settings->pictures, error);
  }
  if (code != 0) {
    m2sed_side_free(side);
    return code;
  }
  *out = side;
  return 0;
}

void m2sed_side_notify(struct m2sed_side *side, struct m2sed_notify room, struct m2sed_notify result) {
  side->room = room;
  m2sed_ring_on_message(side->out, result);
}

bool m2sed_side_offer(struct m2sed_side *side, struct m2sed_side_record *record) {
  for (int attempt = 0; attempt < 2; attempt++) {
    uint64_t waiting = atomic_load(&side->bytes);
    struct m2sed_side_record **slot = NULL;
    if (waiting == 0 || waiting + record->bytes <= side->settings.bytes_max) {
      slot = m2sed_ring_claim(side->in);
    }
    if (slot) {
      atomic_store(&side->refused, false);
      atomic_fetch_add(&side->bytes, record->bytes);
      *slot = record;
      m2sed_ring_publish(side->in);
      return true;
    }
    atomic_store(&side->refused, true); /* then look again: room made meanwhile was told to nobody */
  }
  return false;
}

struct m2sed_side_result *m2sed_side_take(struct m2sed_side *side) {
  struct m2sed_side_result **slot = m2sed_ring_peek(side->out, 0), *result = NULL;
  if (slot) {
    result = *slot;
    m2sed_ring_release(side->out);
    m2sed_waker_wake(&side->waker);
  }
  return result;
}

struct m2sed_side_counters m2sed_side_count(struct m2sed_side *side) {
  pthread_mutex_lock(&side->shown_lock);
  struct m2sed_side_counters counters = side->shown;
  pthread_mutex_unlock(&side->shown_lock);
  return counters;
}

/* Results. */

/* side->item as a result, handed to the loop. When it is to stop, a result that finds no room is dropped: the
 * next life gives it again. */
static int give(struct m2sed_side *side, struct m2se_error *error) {
  const struct m2sed_store_item *item = &side->item;
  size_t dim = side->embedder.dim;
  struct m2sed_side_result *result = calloc(1, sizeof *result + item->content_count * dim * sizeof(float));
  if (!result) {
    return m2se_error_set(error, M2SE_ENOMEM, "features: no memory for the rows of an item");
  }
  result->version = item->version;
  result->is_old = item->waiting > 0;
  result->dim = side->embedder.dim;
  memcpy(result->id, item->id, sizeof result->id);
  for (uint32_t i = 0; i < item->content_count; i++) {
    const struct m2sed_store_content *content = &item->contents[i];
    if (content->row && content->dim == dim) {
      memcpy(result->rows + (result->text_count + result->image_count) * dim, content->row,
             dim * sizeof(float));
      ++*(content->kind == M2SED_CONTENT_TEXT ? &result->text_count : &result->image_count);
    }
    result->refused += content->state == M2SED_CONTENT_REFUSED;
  }
  struct m2sed_side_result **slot;
  while (!(slot = m2sed_ring_claim(side->out)) && !atomic_load(&side->stop)) {
    m2sed_waker_prepare(&side->waker);
    m2sed_waker_nap(&side->waker, 10 * 1000000);
  }
  if (!slot) {
    free(result);
    return 0;
  }
  *slot = result;
  m2sed_ring_publish(side->out);
  side->counters.results++;
  return 0;
}

/* Gives what is known of an item whose record just came: all of it, or all by another model. */
static int give_known(struct m2sed_side *side, const char *id, struct m2se_error *error) {
  int found = m2sed_store_get_item(side->store, id, &side->item, error);
  if (found <= 0) {
    return found;
  }
  uint32_t rows = 0;
  for (uint32_t i = 0; i < side->item.content_count; i++) {
    if (side->item.contents[i].state == M2SED_CONTENT_WAITS) {
      return 0;
    }
    rows += side->item.contents[i].state == M2SED_CONTENT_HAS_ROW;
  }
  return side->item.waiting == 0 || rows > 0 ? give(side, error) : 0;
}

/* Can something of side->item be computed now? */
static bool is_due(const struct m2sed_side *side, const struct m2sed_store_content *content, int64_t now) {
  bool is_text = content->kind == M2SED_CONTENT_TEXT;
  return !content->is_current && content->bytes && content->not_before_ms <= now &&
         (is_text || (side->pictures && side->helper_not_before_ms <= now));
}

static bool has_due(const struct m2sed_side *side, int64_t now) {
  for (uint32_t i = 0; i < side->item.content_count; i++) {
    if (is_due(side, &side->item.contents[i], now)) {
      return true;
    }
  }
  return false;
}

/* The items of which nothing waits any more. */
static int give_finished(struct m2sed_side *side, int64_t now, struct m2se_error *error) {
  uint64_t before = 0;
  int found = 1;
  for (uint32_t scanned = 0, looked_at = 0; scanned < SCANNED_MAX && looked_at < LOOKED_AT_MAX; scanned++) {
    found = m2sed_store_next_item(side->store, &before, &side->item, error);
    if (found <= 0) {
      break;
    }
    if (side->item.waiting == 0) {
      int code = give(side, error);
      code = code ? code : m2sed_store_finish_item(side->store, side->item.id, error);
      if (code != 0) {
        return code;
      }
    } else {
      looked_at += has_due(side, now);
    }
  }
  return found < 0 ? found : m2sed_store_commit(side->store, error);
}

/* Records. */

static struct m2sed_content path_content(struct m2sed_side *side, const char *path, char *name) {
  uint64_t size;
  int64_t changed_ns;
  int length = m2sed_picture_file_look(side->settings.image_root, path, &size, &changed_ns, NULL) == 0
                   ? snprintf(name, PATH_NAME_MAX, "%llu %lld %s", (unsigned long long)size,
                              (long long)changed_ns, path)
                   : snprintf(name, PATH_NAME_MAX, "- - %s", path);
  assert(length < PATH_NAME_MAX);
  return (struct m2sed_content){M2SED_CONTENT_PATH, name, (size_t)length};
}

static int put(struct m2sed_side *side, const struct m2sed_side_record *record, struct m2se_error *error) {
  uint32_t count = 0, paths = 0;
  for (uint32_t i = 0; i < record->count; i++) {
    struct m2sed_content content = record->contents[i];
    if (content.kind != M2SED_CONTENT_TEXT && !side->pictures) {
      continue;
    }
    if (content.kind == M2SED_CONTENT_PATH) {
      content = path_content(side, content.bytes, side->names[paths++]);
    }
    side->contents[count++] = content;
  }
  return m2sed_store_put_item(side->store, record->id, record->version, side->contents, count, error);
}

static void release(struct m2sed_side *side, struct m2sed_side_record *record) {
  m2sed_ring_release(side->in);
  uint64_t left = atomic_fetch_sub(&side->bytes, record->bytes) - record->bytes;
  m2sed_side_record_free(record);
  bool room =
      left <= side->settings.bytes_max / 2 && m2sed_ring_used(side->in) <= m2sed_ring_capacity(side->in) / 2;
  if (room && atomic_exchange(&side->refused, false) && side->room.call) {
    side->room.call(side->room.arg);
  }
}

/* What was offered, into the store. Returns how many records, all committed; or an error, then all are still
 * in the ring. */
static int take_records(struct m2sed_side *side, struct m2se_error *error) {
  struct m2sed_side_record *records[TAKEN_MAX], **slot;
  int count = 0, code = 0;
  while (count < TAKEN_MAX && code >= 0 && (slot = m2sed_ring_peek(side->in, (uint32_t)count))) {
    records[count] = *slot;
    code = records[count]->is_deletion ? m2sed_store_delete_item(side->store, records[count]->id, error)
                                       : put(side, records[count], error);
    count++;
  }
  code = code < 0 ? code : m2sed_store_commit(side->store, error);
  for (int i = 0; i < count && code >= 0; i++) {
    code = give_known(side, records[i]->id, error);
  }
  if (code < 0) {
    return code;
  }
  for (int i = 0; i < count; i++) {
    release(side, records[i]);
    side->counters.records++;
  }
  return count;
}

/* Computing. */

/* Adds it if it belongs in the same mini-batch; whether the job is complete. */
static bool add_to_job(struct job *job, const struct m2sed_store_content *content) {
  bool is_text = content->kind == M2SED_CONTENT_TEXT, is_alone = !is_text || content->attempts > 0;
  if (is_alone && job->count > 0) {
    return false;
  }
  for (uint32_t i = 0; i < job->count; i++) {
    if (memcmp(job->digests[i], content->digest, sizeof content->digest) == 0) {
      return false;
    }
  }
  job->kind = content->kind;
  job->attempts = content->attempts;
  job->views[job->count] = (struct m2sed_embed_text){content->bytes, content->size};
  memcpy(job->digests[job->count], content->digest, sizeof content->digest);
  job->count++;
  return is_alone || job->count == M2SED_SIDE_TEXTS_MAX;
}

/* The next job, of the newest items that have something to do. Its views are those of the store. */
static int find_job(struct m2sed_side *side, int64_t now, struct m2se_error *error) {
  side->job.count = 0;
  uint64_t before = 0;
  for (uint32_t scanned = 0, looked_at = 0; scanned < SCANNED_MAX && looked_at < LOOKED_AT_MAX; scanned++) {
    int found = m2sed_store_next_item(side->store, &before, &side->item, error);
    if (found <= 0) {
      return found;
    }
    looked_at += has_due(side, now);
    for (uint32_t i = 0; i < side->item.content_count; i++) {
      if (is_due(side, &side->item.contents[i], now) && add_to_job(&side->job, &side->item.contents[i])) {
        return 0;
      }
    }
  }
  return 0;
}

/* The job failed: again, or never. `may_pass`: the failure may be the moment's. */
static int give_up_or_retry(struct m2sed_side *side, bool may_pass, const char *reason, int64_t now,
                            struct m2se_error *error) {
  const struct job *job = &side->job;
  if (job->count == 1 && (!may_pass || job->attempts + 1 >= M2SED_SIDE_ATTEMPTS_MAX)) {
    side->counters.refused++;
    return m2sed_store_refuse(side->store, job->digests[0], reason, error);
  }
  int64_t not_before = job->count > 1 ? 0 : now + ((int64_t)side->settings.retry_ms << (2 * job->attempts));
  int code = 0;
  for (uint32_t i = 0; i < job->count && code == 0; i++) {
    code = m2sed_store_retry(side->store, job->digests[i], not_before, error);
    side->counters.retries++;
  }
  return code;
}

/* side->rows into the store, if `code` and they are good. */
static int settle(struct m2sed_side *side, int code, struct m2se_error *why, int64_t now,
                  struct m2se_error *error) {
  size_t dim = side->embedder.dim;
  for (size_t i = 0; i < side->job.count * dim && code == 0; i++) {
    if (!isfinite(side->rows[i])) {
      code = m2se_error_set(why, M2SE_ENUMERIC, "a row is not finite");
    }
  }
  if (code != 0) {
    return give_up_or_retry(side, true, why->text, now, error);
  }
  for (uint32_t i = 0; i < side->job.count && code == 0; i++) {
    code = m2sed_store_put_row(side->store, side->job.digests[i], side->rows + i * dim, (uint32_t)dim, error);
  }
  return code;
}

static int decode(struct m2sed_side *side, struct m2sed_picture *picture, struct m2se_error *why) {
  const struct m2sed_embed_text *view = &side->job.views[0];
  if (side->job.kind == M2SED_CONTENT_PICTURE) {
    return m2sed_pictures_decode(side->pictures, view->data, view->size, picture, why);
  }
  char name[PATH_NAME_MAX + 1] = "";
  memcpy(name, view->data, view->size < PATH_NAME_MAX ? view->size : PATH_NAME_MAX);
  const char *path = strchr(name, ' '); /* behind size and time */
  path = path ? strchr(path + 1, ' ') : NULL;
  return m2sed_pictures_decode_file(side->pictures, side->settings.image_root, path ? path + 1 : "", picture,
                                    why);
}

static int compute_picture(struct m2sed_side *side, int64_t now, struct m2se_error *error) {
  struct m2sed_picture picture;
  struct m2se_error why = {0};
  int reason = decode(side, &picture, &why);
  side->counters.decoded = m2sed_pictures_count(side->pictures);
  if (reason < 0) { /* ours, not the picture's */
    side->counters.helper_errors++;
    side->helper_not_before_ms = now + HELPER_REST_MS;
    snprintf(side->counters.problem, sizeof side->counters.problem, "%.250s", why.text);
    return 0;
  }
  if (reason > 0) {
    bool may_pass = reason == M2SED_PICTURE_TIMEOUT || reason == M2SED_PICTURE_CRASHED ||
                    reason == M2SED_PICTURE_UNREADABLE;
    return give_up_or_retry(side, may_pass, why.text, now, error);
  }
  side->counters.pictures++;
  int code = side->embedder.picture(side->embedder.self, &picture, side->rows, &why);
  return settle(side, code, &why, now, error);
}

static int compute_texts(struct m2sed_side *side, int64_t now, struct m2se_error *error) {
  struct m2se_error why = {0};
  const struct job *job = &side->job;
  int code = side->embedder.texts(side->embedder.self, job->views, job->count, side->rows, &why);
  side->counters.texts += job->count;
  return settle(side, code, &why, now, error);
}

/* The thread. */

/* 1: something was done; 0: nothing is to do; an error of the store: what this turn did is undone. */
static int take_turn(struct m2sed_side *side, struct m2se_error *error) {
  int64_t now = now_ms();
  int taken = take_records(side, error);
  int code = taken < 0 ? taken : give_finished(side, now, error);
  code = code ? code : find_job(side, now, error);
  if (code == 0 && side->job.count > 0) {
    bool is_text = side->job.kind == M2SED_CONTENT_TEXT;
    code = is_text ? compute_texts(side, now, error) : compute_picture(side, now, error);
  }
  code = code ? code : m2sed_store_commit(side->store, error);
  return code ? code : taken > 0 || side->job.count > 0;
}

static void show(struct m2sed_side *side, int code, const struct m2se_error *error) {
  struct m2sed_side_counters *counters = &side->counters;
  if (code < 0) {
    counters->store_errors++;
    snprintf(counters->problem, sizeof counters->problem, "%.250s", error->text);
  } else if (side->helper_not_before_ms == 0 || side->helper_not_before_ms <= now_ms()) {
    counters->problem[0] = '\0';
  }
  (void)m2sed_store_count(side->store, &counters->store, NULL); /* what was is shown again if it fails */
  m2sed_store_rollback(side->store);
  pthread_mutex_lock(&side->shown_lock);
  side->shown = *counters;
  pthread_mutex_unlock(&side->shown_lock);
}

static void *run(void *argument) {
  struct m2sed_side *side = argument;
  m2sed_pool_lower_thread(side->settings.nice);
  while (!atomic_load(&side->stop)) {
    struct m2se_error error = {0};
    int code = take_turn(side, &error);
    if (code < 0) {
      m2sed_store_rollback(side->store);
    }
    show(side, code, &error);
    if (code <= 0) {
      m2sed_waker_prepare(&side->waker);
      bool is_work = code == 0 && m2sed_ring_peek(side->in, 0);
      if (is_work || atomic_load(&side->stop)) {
        m2sed_waker_cancel(&side->waker);
      } else {
        m2sed_waker_nap(&side->waker, NAP_MS * INT64_C(1000000));
      }
    }
  }
  return NULL;
}

int m2sed_side_start(struct m2sed_side *side, struct m2se_error *error) {
  assert(!side->started);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int status = pthread_create(&side->thread, NULL, run, side);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (status != 0) {
    return m2se_error_set(error, M2SE_EIO, "features: thread: %s", strerror(status));
  }
  side->started = true;
  return 0;
}

void m2sed_side_stop(struct m2sed_side *side) {
  if (side->started) {
    atomic_store(&side->stop, true);
    m2sed_waker_wake(&side->waker);
    pthread_join(side->thread, NULL);
    side->started = false;
  }
}

void m2sed_side_free(struct m2sed_side *side) {
  if (!side) {
    return;
  }
  assert(!side->started);
  struct m2sed_side_record **record;
  while (side->in && (record = m2sed_ring_peek(side->in, 0))) {
    m2sed_side_record_free(*record);
    m2sed_ring_release(side->in);
  }
  struct m2sed_side_result **result;
  while (side->out && (result = m2sed_ring_peek(side->out, 0))) {
    free(*result);
    m2sed_ring_release(side->out);
  }
  m2sed_ring_free(side->in);
  m2sed_ring_free(side->out);
  m2sed_pictures_close(side->pictures);
  m2sed_store_close(side->store);
  pthread_mutex_destroy(&side->shown_lock);
  free(side->rows);
  free(side);
}
