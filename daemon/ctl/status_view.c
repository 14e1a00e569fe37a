#include "daemon/ctl/status_view.h"

#include <inttypes.h>
#include <string.h>

void m2sed_status_remember(struct m2sed_status_history *history, const struct m2se_status *status) {
  if (history->count == M2SED_STATUS_SECONDS) {
    history->count--;
    size_t kept = history->count * sizeof(double);
    memmove(history->hr10, history->hr10 + 1, kept);
    memmove(history->events_per_second, history->events_per_second + 1, kept);
  }
  history->hr10[history->count] = status->prequential.model_recent.hr10;
  history->events_per_second[history->count] = status->events.per_second;
  history->count++;
}

bool m2sed_status_is_stale(const struct m2se_status *status, int64_t now_ms) {
  return now_ms - status->time_ms > M2SED_STATUS_STALE_MS;
}

static int64_t sum_lag(const struct m2se_status *status) {
  int64_t lag = 0;
  for (uint32_t i = 0; i < status->partition_count; i++)
    lag += status->partitions[i].lag;
  return lag;
}

/* Freshness of the last stage: from the event to the vector that knows of it. */
static struct m2se_status_freshness end_to_end(const struct m2se_status *status) {
  return status->freshness_count ? status->freshness[status->freshness_count - 1]
                                 : (struct m2se_status_freshness){0};
}

/* ---- the panel ---- */

static void label(struct m2sed_text *text, const char *name) {
  m2sed_text_add(text, "%-12s", name);
}

static void add_number(struct m2sed_text *text, uint64_t count, const char *what) {
  m2sed_text_add_count(text, count);
  m2sed_text_add(text, " %s", what);
}

static void add_foreign(struct m2sed_text *text, const char *string) {
  m2sed_text_add_foreign(text, string, strlen(string));
}

static void add_head(struct m2sed_text *text, const struct m2sed_status_view *view) {
  const struct m2se_status *status = view->status;
  m2sed_text_add(text, "m2sed ");
  add_foreign(text, status->instance);
  m2sed_text_add(text, "   %s   up ", m2se_state_name(status->state));
  m2sed_text_add_seconds(text, status->uptime_seconds);
  m2sed_text_add(text, "   (");
  add_foreign(text, status->version);
  m2sed_text_add(text, ", ");
  add_foreign(text, status->blas_kernel);
  m2sed_text_add(text, ", ");
  add_foreign(text, status->simd_kernel);
  m2sed_text_add(text, ")\n");
  if (m2sed_status_is_stale(status, view->now_ms)) {
    m2sed_text_add(text, "! STALE: this was written ");
    m2sed_text_add_seconds(text, (double)(view->now_ms - status->time_ms) / 1000);
    m2sed_text_add(text, " ago; the daemon does not run, or cannot reach Redis\n");
  }
  for (uint32_t i = 0; i < status->reason_count; i++) {
    m2sed_text_add(text, "! ");
    add_foreign(text, status->reasons[i]);
    m2sed_text_add(text, "\n");
  }
  m2sed_text_add(text, "\n");
}

/* Events that taught nothing, and why; nothing is said of what did not happen. */
static void add_left_out(struct m2sed_text *text, const struct m2se_status_events *events) {
  const struct {
    uint64_t count;
    const char *what;
  } kinds[] = {{events->skipped_no_context, "without context"},
               {events->skipped_no_features, "without features"},
               {events->skipped_duplicate, "repeated"},
               {events->skipped_guard, "guarded"},
               {events->dead_lettered, "bad"},
               {events->skipped_erased, "of users to be forgotten"},
               {events->skipped_training_off, "while training was off"}};
  bool any = false;
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    if (!kinds[i].count)
      continue;
    m2sed_text_add(text, "%s", any ? ", " : "            left out: ");
    add_number(text, kinds[i].count, kinds[i].what);
    any = true;
  }
  for (uint32_t i = 0; i < events->refused_count; i++) {
    m2sed_text_add(text, i ? ", " : any ? " (" : "            refused: ");
    m2sed_text_add_count(text, events->refused[i].count);
    m2sed_text_add(text, " ");
    add_foreign(text, events->refused[i].rule);
  }
  m2sed_text_add(text, "%s%s", any && events->refused_count ? ")" : "",
                 any || events->refused_count ? "\n" : "");
}

static void add_parked(struct m2sed_text *text, const struct m2se_status_events *events) {
  if (!events->parked && !events->unparked && !events->parking_dropped)
    return;
  label(text, "");
  m2sed_text_add(text, "parked: ");
  add_number(text, events->parked, "wait for features of their items, for ");
  add_number(text, events->unparked, "they came, ");
  add_number(text, events->parking_dropped, "given up\n");
}

static void add_events(struct m2sed_text *text, const struct m2sed_status_view *view) {
  const struct m2se_status *status = view->status;
  const struct m2se_status_events *events = &status->events;
  label(text, "events");
  m2sed_text_add_count(text, (uint64_t)(events->per_second > 0 ? events->per_second + 0.5 : 0));
  m2sed_text_add(text, "/s   ");
  add_number(text, events->received, "received   ");
  add_number(text, events->trained, "trained\n");
  add_left_out(text, events);
  add_parked(text, events);
  if (events->lost) {
    label(text, "");
    add_number(text, events->lost, "LOST: removed from the log before they were read\n");
  }
  label(text, "lag");
  int64_t lag = sum_lag(status);
  add_number(text, (uint64_t)(lag > 0 ? lag : 0), "records in ");
  add_number(text, status->partition_count, status->partition_count == 1 ? "partition   " : "partitions   ");
  add_number(text, events->in_flight, "in flight\n");
  if (view->history) {
    label(text, "");
    m2sed_text_add(text, "events/s ");
    m2sed_text_add_bars(text, view->history->events_per_second, view->history->count);
    m2sed_text_add(text, "\n");
  }
}

/* What the guard did, and what training that was behind has cost; nothing is said of what did not happen. */
static void add_guard(struct m2sed_text *text, const struct m2se_status_training *training) {
  if (training->steps_refused || training->refused_in_a_row || training->rollbacks) {
    label(text, "guard");
    add_number(text, training->steps_refused, "steps REFUSED   ");
    add_number(text, training->refused_in_a_row, "not well in a row   weights went back ");
    add_number(text, training->rollbacks, training->rollbacks == 1 ? "time\n" : "times\n");
  }
  if (training->replay_taken_away) {
    label(text, "overload");
    add_number(text, training->replay_taken_away, "replayed examples were left out to catch up\n");
  }
}

static void add_learning(struct m2sed_text *text, const struct m2se_status *status) {
  const struct m2se_status_training *training = &status->training;
  label(text, "learning");
  m2sed_text_add(text, "step ");
  m2sed_text_add_count(text, training->step);
  m2sed_text_add(text, "   loss %.4f (mean %.4f)\n", training->loss, training->loss_mean);
  label(text, "");
  m2sed_text_add(text, "NIP text %.4f image %.4f   CMCL text %.4f image %.4f\n", training->nip_text,
                 training->nip_image, training->cmcl_text, training->cmcl_image);
  label(text, "");
  m2sed_text_add(text, "%" PRIu32 " new + %" PRIu32 " replayed in %.1f ms   ", training->fresh,
                 training->replayed, training->step_ms);
  add_number(text, training->waiting, "waiting");
  if (training->backlog) {
    m2sed_text_add(text, " of at most ");
    m2sed_text_add_count(text, training->backlog);
  }
  m2sed_text_add(text, "   reservoir ");
  m2sed_text_add_count(text, status->reservoir.size);
  m2sed_text_add(text, " of ");
  m2sed_text_add_count(text, status->reservoir.capacity);
  m2sed_text_add(text, "\n");
  add_guard(text, training);
}

static void add_quality(struct m2sed_text *text, const struct m2sed_status_view *view) {
  const struct m2se_status_prequential *all = &view->status->prequential;
  const struct m2se_status_metrics *model = view->exclude_seen ? &all->model_unseen : &all->model;
  const struct m2se_status_metrics *popularity =
      view->exclude_seen ? &all->popularity_unseen : &all->popularity;
  label(text, "quality");
  add_number(text, all->events, "events judged before they were learned");
  if (all->skipped) {
    m2sed_text_add(text, " (");
    add_number(text, all->skipped, "more skipped)");
  }
  m2sed_text_add(text, "\n%24s%-30s%s\n", "", "newest 1000 or so", "all of this run");
  const struct {
    const char *name;
    double recent, recent_popularity, all, all_popularity;
  } rows[] = {{"HR@10", all->model_recent.hr10, all->popularity_recent.hr10, model->hr10, popularity->hr10},
              {"NDCG@10", all->model_recent.ndcg10, all->popularity_recent.ndcg10, model->ndcg10,
               popularity->ndcg10}};
  for (int i = 0; i < 2; i++) {
    label(text, "");
    m2sed_text_add(text, "%-8s    %.4f (popularity %.4f)    %.4f (popularity %.4f)\n", rows[i].name,
                   rows[i].recent, rows[i].recent_popularity, rows[i].all, rows[i].all_popularity);
  }
  if (view->history) {
    label(text, "");
    m2sed_text_add(text, "HR@10    ");
    m2sed_text_add_bars(text, view->history->hr10, view->history->count);
    m2sed_text_add(text, "\n");
  }
}

static void add_serving(struct m2sed_text *text, const struct m2se_status *status) {
  const struct m2se_status_serving *serving = &status->serving;
  label(text, "freshness");
  m2sed_text_add(text, "p50/p99 ms:");
  for (uint32_t i = 0; i < status->freshness_count; i++) {
    m2sed_text_add(text, i ? ", " : " ");
    add_foreign(text, status->freshness[i].stage);
    m2sed_text_add(text, " %.0f/%.0f", status->freshness[i].p50_ms, status->freshness[i].p99_ms);
  }
  m2sed_text_add(text, "\n");
  label(text, "serving");
  m2sed_text_add(text, "epoch %" PRIu64 " of step %" PRIu64 ", ", serving->epoch, serving->epoch_step);
  m2sed_text_add_seconds(text, serving->epoch_age_seconds);
  m2sed_text_add(text, " old   ");
  add_number(text, serving->users_waiting, "users waiting\n");
  label(text, "");
  add_number(text, serving->users_published, "user and ");
  add_number(text, serving->items_published, "item vectors written\n");
  label(text, "catalogue");
  add_number(text, status->catalogue.items, "items, ");
  add_number(text, status->catalogue.featurised, "with features   about ");
  add_number(text, status->catalogue.users_active, "users\n");
  const struct m2se_status_features *features = &status->features;
  if (features->items) { /* else they come ready-made */
    label(text, "features");
    add_number(text, features->items, "items, ");
    add_number(text, features->pending, "pending   ");
    add_number(text, features->waiting, "texts and pictures wait, ");
    add_number(text, features->refused, "refused\n");
  }
}

static void add_process(struct m2sed_text *text, const struct m2se_status *status) {
  const struct m2se_status_checkpoint *checkpoint = &status->checkpoint;
  label(text, "checkpoint");
  m2sed_text_add(text, "generation %" PRIu64 " of step %" PRIu64 ", ", checkpoint->generation,
                 checkpoint->step);
  m2sed_text_add_seconds(text, checkpoint->age_seconds);
  m2sed_text_add(text, " old, ");
  m2sed_text_add_bytes_size(text, checkpoint->bytes);
  m2sed_text_add(text, " in %.0f ms", checkpoint->duration_ms);
  if (checkpoint->failures) {
    m2sed_text_add(text, "   ");
    add_number(text, checkpoint->failures, "FAILED: ");
    add_foreign(text, checkpoint->last_error);
  }
  m2sed_text_add(text, "\n");
  if (status->lease.role && status->lease.role[0]) {
    label(text, "lease");
    add_foreign(text, status->lease.role);
    m2sed_text_add(text, ", fence %" PRIu64 "   heard of ", status->lease.fence);
    m2sed_text_add_seconds(text, status->lease.age_seconds);
    m2sed_text_add(text, " ago, runs out after %.0f s", status->lease.seconds);
    if (status->lease.takeover_ms > 0)
      m2sed_text_add(text, "   taken over within %.1f s", status->lease.takeover_ms / 1000);
    m2sed_text_add(text, "\n");
  }
  label(text, "process");
  m2sed_text_add_bytes_size(text, status->process.resident_bytes);
  m2sed_text_add(text, "   %.1f s of CPU   loop held up %.1f ms   Redis ", status->process.cpu_seconds,
                 status->process.loop_delay_ms);
  m2sed_text_add_bytes_size(text, status->redis.memory_used_bytes);
  m2sed_text_add(text, "\n");
  const char *errors[] = {status->redis.last_error, status->kafka.last_error};
  for (int i = 0; i < 2; i++) {
    if (!errors[i][0])
      continue;
    label(text, i ? "Kafka said" : "Redis said");
    add_foreign(text, errors[i]);
    m2sed_text_add(text, "\n");
  }
}

void m2sed_status_add_panel(struct m2sed_text *text, const struct m2sed_status_view *view) {
  add_head(text, view);
  add_events(text, view);
  add_learning(text, view->status);
  add_quality(text, view);
  add_serving(text, view->status);
  add_process(text, view->status);
}

/* ---- the line ---- */

void m2sed_status_add_line(struct m2sed_text *text, const struct m2sed_status_view *view) {
  const struct m2se_status *status = view->status;
  const struct m2se_status_training *training = &status->training;
  const struct m2se_status_prequential *all = &status->prequential;
  struct m2se_status_freshness fresh = end_to_end(status);
  m2sed_text_add_time(text, view->now_ms);
  m2sed_text_add(text, " %s%s events=%" PRIu64 " events_per_second=%.0f trained=%" PRIu64 " lag=%" PRId64,
                 m2se_state_name(status->state), m2sed_status_is_stale(status, view->now_ms) ? " STALE" : "",
                 status->events.received, status->events.per_second, status->events.trained, sum_lag(status));
  m2sed_text_add(text, " step=%" PRIu64 " loss=%.4f nip=%.4f cmcl=%.4f", training->step, training->loss,
                 training->nip_text + training->nip_image, training->cmcl_text + training->cmcl_image);
  m2sed_text_add(text, " hr10=%.4f popularity_hr10=%.4f ndcg10=%.4f popularity_ndcg10=%.4f",
                 all->model_recent.hr10, all->popularity_recent.hr10, all->model_recent.ndcg10,
                 all->popularity_recent.ndcg10);
  m2sed_text_add(text, " fresh_p50_ms=%.0f fresh_p99_ms=%.0f epoch=%" PRIu64 " checkpoint=%" PRIu64,
                 fresh.p50_ms, fresh.p99_ms, status->serving.epoch, status->checkpoint.generation);
}

/* ---- fitting ---- */

void m2sed_status_fit(struct m2sed_text *out, const struct m2sed_text *panel, uint32_t lines,
                      uint32_t columns) {
  const char *line = panel->data ? panel->data : "";
  for (uint32_t i = 0; i < lines && *line; i++) {
    size_t length = strcspn(line, "\n"), kept = 0;
    uint32_t characters = 0;
    for (; kept < length; kept++) {
      characters += ((unsigned char)line[kept] & 0xc0) != 0x80; /* not in the middle of one */
      if (characters > columns)
        break;
    }
    m2sed_text_add_bytes(out, line, kept);
    m2sed_text_add(out, "\033[K\n");
    line += length + (line[length] == '\n');
  }
}
