/* m2se_bench: how fast the model runs on this machine. One JSON line a result; everything random is drawn
 * from
 * --seed, so two runs do the same work. The share of the machine's limit comes from a product of large
 * matrices, measured in the same run with the same threads. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <time.h>

#include "daemon/pool.h"
#include "daemon/tools/m2se_bench_embed.h"
#include "daemon/tools/m2se_bench_ingest.h"
#include "daemon/tools/m2se_bench_store.h"
#include "model/blas.h"
#include "model/m2se_serve.h"
#include "model/random.h"

enum { SQUARE = 1024, PURPOSE_LENGTHS = 1, PURPOSE_ITEMS, PURPOSE_TARGETS, DRAWS = 4 };

struct flags {
  const char *command;
  uint32_t batch, len_min, len_max, items, text_rows, image_rows, dim, threads, steps, seed;
  enum m2se_targets targets;
  struct m2se_bench_ingest_flags ingest;
  struct m2se_bench_embed_flags embed;
};

static const char usage[] =
    "m2se_bench train|encode|ingest|store|embed|embed-image [OPTION...]\n"
    "\n"
    "  train   steps over random mini-batches, finding their distinct items included\n"
    "  encode  user vectors from ready item states, and item vectors from feature rows\n"
    "  ingest  decode, the user's sequence in a redis-server of its own, ring; bytes a user takes there\n"
    "  store   --items of one text and one picture in the store of feature rows, --dim wide\n"
    "  embed   vectors of texts, with a BERT folder; embed-image: of pictures, with a CLIP folder\n"
    "\n"
    "  --batch N         sequences of a mini-batch (1024); texts (32) or pictures (8) of a call\n"
    "  --len-min N, --len-max N   lengths of sequences, uniform (1, 15)\n"
    "  --items N         items they are drawn from, uniform (1600)\n"
    "  --text-rows N, --image-rows N, --dim N   feature rows of an item, their width (1, 15, 768)\n"
    "  --threads N       (2)\n"
    "  --steps N         timed, after two that are not (10)\n"
    "  --targets last|all   (last)\n"
    "  --seed N          (1)\n"
    "  --users N, --events N   of ingest, with --items (100000, 200000)\n"
    "  --zipf N          the user of rank r has weight r^(-N/100); 0: all alike (100)\n"
    "  --event-ids 0|1   do events carry an event_id? (1)\n"
    "  --vector-dim N, --float16 0|1    of the users' vectors (129, 0)\n"
    "  --first-user N    number of the first user (0)\n"
    "  --model DIR       of embed: a Hugging Face folder\n"
    "  --tokens N, --tokens-min N   ids of a text, spread evenly between the two (60, all alike)\n"
    "  --rows N          ids computed at a time (all of a call)\n"
    "  --redis URI       a server that is there: only adds users to it, and measures no plain SETs\n";

static void fail(int status, const char *what, const char *why) {
  fprintf(stderr, "m2se_bench: %s%s%s\n", what, *why ? ": " : "", why);
  exit(status);
}

static uint32_t number(const char *name, const char *text, unsigned long low, unsigned long high) {
  char *end;
  errno = 0;
  unsigned long value = strtoul(text, &end, 10);
  if (errno || end == text || *end || *text == '-' || value < low || value > high) {
    char why[128];
    snprintf(why, sizeof why, "'%.40s' is not a number from %lu to %lu", text, low, high);
    fail(EX_USAGE, name, why);
  }
  return (uint32_t)value;
}

static struct flags parse(int count, char **arguments) {
  struct flags f = {NULL, 0, 1, 15, 1600, 1, 15, 768, 2, 10, 1, M2SE_TARGETS_LAST, {0}, {.tokens = 60}};
  f.ingest = (struct m2se_bench_ingest_flags){
      .users = 100000, .events = 200000, .zipf_hundredths = 100, .event_ids = 1, .vector_dim = 129};
  const struct {
    const char *name;
    uint32_t *value;
    unsigned long low, high;
  } numbers[] = {{"batch", &f.batch, 1, 65536},
                 {"len-min", &f.len_min, 1, 1024},
                 {"len-max", &f.len_max, 1, 1024},
                 {"items", &f.items, 1, 10000000},
                 {"text-rows", &f.text_rows, 0, 1024},
                 {"image-rows", &f.image_rows, 0, 1024},
                 {"dim", &f.dim, 1, 4096},
                 {"threads", &f.threads, 1, M2SED_POOL_THREADS_MAX},
                 {"steps", &f.steps, 1, 1000000},
                 {"seed", &f.seed, 0, UINT32_MAX},
                 {"users", &f.ingest.users, 1, 9999999},
                 {"events", &f.ingest.events, 1, 100000000},
                 {"zipf", &f.ingest.zipf_hundredths, 0, 300},
                 {"event-ids", &f.ingest.event_ids, 0, 1},
                 {"vector-dim", &f.ingest.vector_dim, 1, 1024},
                 {"float16", &f.ingest.float16, 0, 1},
                 {"first-user", &f.ingest.first_user, 0, 9999999},
                 {"tokens", &f.embed.tokens, 2, 8192},
                 {"tokens-min", &f.embed.tokens_min, 0, 8192},
                 {"rows", &f.embed.rows, 0, 1000000}};
  enum { NUMBERS = sizeof numbers / sizeof *numbers, TARGETS = NUMBERS, REDIS, MODEL, HELP };
  struct option options[NUMBERS + 5] = {0};
  for (int k = 0; k < NUMBERS; k++) {
    options[k] = (struct option){numbers[k].name, required_argument, NULL, k};
  }
  options[TARGETS] = (struct option){"targets", required_argument, NULL, TARGETS};
  options[REDIS] = (struct option){"redis", required_argument, NULL, REDIS};
  options[MODEL] = (struct option){"model", required_argument, NULL, MODEL};
  options[HELP] = (struct option){"help", no_argument, NULL, HELP};
  for (int k; (k = getopt_long(count, arguments, "", options, NULL)) != -1;) {
    if (k == HELP) {
      fputs(usage, stdout);
      exit(EX_OK);
    } else if (k == TARGETS && (!strcmp(optarg, "all") || !strcmp(optarg, "last"))) {
      f.targets = strcmp(optarg, "all") ? M2SE_TARGETS_LAST : M2SE_TARGETS_ALL;
    } else if (k == REDIS) {
      f.ingest.redis = optarg;
    } else if (k == MODEL) {
      f.embed.model = optarg;
    } else if (k >= 0 && k < NUMBERS) {
      *numbers[k].value = number(numbers[k].name, optarg, numbers[k].low, numbers[k].high);
    } else {
      fail(EX_USAGE, k == TARGETS ? "--targets must be last or all" : "see --help", "");
    }
  }
  if (optind + 1 != count || f.len_min > f.len_max || f.text_rows + f.image_rows == 0 ||
      f.embed.tokens_min > f.embed.tokens) {
    fail(EX_USAGE, "one command, --len-min at most --len-max, and rows in one modality at least", "");
  }
  f.command = arguments[optind];
  f.embed.batch = f.batch ? f.batch : strcmp(f.command, "embed-image") ? 32 : 8;
  f.batch = f.batch ? f.batch : 1024;
  return f;
}

static double now_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Everything taken here goes back together, at the end. */
static void *taken[64];
static uint32_t taken_count;

static void *take(size_t count, size_t bytes) {
  void *p = calloc(count ? count : 1, bytes);
  if (!p || taken_count == sizeof taken / sizeof *taken) {
    fail(EX_OSERR, "no memory", "");
  }
  return taken[taken_count++] = p;
}

static void give_back(void) {
  while (taken_count) {
    free(taken[--taken_count]);
  }
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, size_t n) {
  qsort(values, n, sizeof *values, by_value);
  return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

static double peak_rss_bytes(void) {
  struct rusage usage_now;
  getrusage(RUSAGE_SELF, &usage_now);
  return 1024.0 * (double)usage_now.ru_maxrss;
}

/* ---- the machine's limit ---- */

static void square_task(void *arg, uint32_t t, uint32_t w) {
  (void)w;
  float *m = (float *)arg + 3 * (size_t)t * SQUARE * SQUARE;
  m2se_blas_square(SQUARE, m, m + SQUARE * SQUARE, m + 2 * SQUARE * SQUARE);
}

/* The best of several products, one on each thread at the same time. */
static double sgemm_gflops(const struct m2se_workers *workers) {
  size_t n = 3 * (size_t)workers->count * SQUARE * SQUARE;
  float *matrices = take(n, sizeof *matrices);
  for (size_t k = 0; k < n; k++) {
    matrices[k] = (float)(k % 251) / 251;
  }
  double best = 0;
  for (int k = 0; k < 8; k++) {
    double begin = now_seconds();
    workers->run(workers->pool, square_task, matrices, workers->count);
    double rate = 2e-9 * SQUARE * SQUARE * SQUARE * workers->count / (now_seconds() - begin);
    best = rate > best ? rate : best;
  }
  return best;
}

/* ---- random catalogue and mini-batches ---- */

struct catalogue {
  float *rows;
  struct m2se_item_input *items;
};

static struct catalogue catalogue_make(const struct flags *f) {
  size_t rows = (size_t)f->text_rows + f->image_rows, n = rows * f->items * f->dim;
  struct catalogue c = {take(n, sizeof *c.rows), take(f->items, sizeof *c.items)};
  uint64_t state = f->seed; /* a linear congruential generator: nothing here needs better numbers */
  for (size_t k = 0; k < n; k++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    c.rows[k] = (float)(state >> 40) * 0x1p-24f * 3.46f - 1.73f; /* uniform, mean 0, variance 1 */
  }
  for (uint32_t i = 0; i < f->items; i++) {
    float *text = c.rows + rows * i * f->dim;
    c.items[i].slot = i;
    c.items[i].text = (struct m2se_rows){text, f->text_rows};
    c.items[i].image = (struct m2se_rows){text + (size_t)f->text_rows * f->dim, f->image_rows};
  }
  return c;
}

struct draw { /* sequences as numbers of the catalogue */
  uint32_t *ptr, *items, *target;
};

static struct draw draw_make(const struct flags *f, uint32_t number_of_draw) {
  struct draw d = {take(f->batch + 1, 4), take((size_t)f->batch * f->len_max, 4), take(f->batch, 4)};
  for (uint32_t j = 0; j < f->batch; j++) {
    uint32_t spread = f->len_max - f->len_min + 1;
    d.ptr[j + 1] = d.ptr[j] + f->len_min +
                   (uint32_t)m2se_random_below(f->seed, number_of_draw, PURPOSE_LENGTHS, j, spread);
    d.target[j] = (uint32_t)m2se_random_below(f->seed, number_of_draw, PURPOSE_TARGETS, j, f->items);
  }
  for (uint32_t p = 0; p < d.ptr[f->batch]; p++) {
    d.items[p] = (uint32_t)m2se_random_below(f->seed, number_of_draw, PURPOSE_ITEMS, p, f->items);
  }
  return d;
}

/* What a trainer does before each step: the distinct items of the mini-batch, numbered. */
struct assembly {
  struct m2se_item_input *items;
  int32_t *number; /* [catalogue] */
  uint32_t *seq_items, *target;
};

static uint32_t number_of(struct assembly *a, const struct catalogue *c, uint32_t item, uint32_t *n) {
  if (a->number[item] < 0) {
    a->items[*n] = c->items[item];
    a->number[item] = (int32_t)(*n)++;
  }
  return (uint32_t)a->number[item];
}

static struct m2se_batch assemble(struct assembly *a, const struct catalogue *c, const struct draw *d,
                                  const struct flags *f) {
  uint32_t n = 0;
  memset(a->number, -1, f->items * sizeof *a->number);
  for (uint32_t p = 0; p < d->ptr[f->batch]; p++) {
    a->seq_items[p] = number_of(a, c, d->items[p], &n);
  }
  for (uint32_t j = 0; j < f->batch; j++) {
    a->target[j] = number_of(a, c, d->target[j], &n);
  }
  return (struct m2se_batch){n, a->items, f->batch, d->ptr, a->seq_items, a->target, NULL, NULL};
}

static struct m2se_config config_of(const struct flags *f) {
  struct m2se_config config;
  m2se_config_defaults(&config);
  config.d = f->dim;
  config.max_len = f->len_max > 50 ? f->len_max : 50;
  config.targets = f->targets;
  config.item_residual = config.item_bias = false;
  config.learning_rate = 1e-3;
  config.seed = f->seed;
  return config;
}

/* ---- train ---- */

static void train(const struct flags *f, const struct m2se_workers *workers) {
  struct m2se_error error = {0};
  struct m2se_config config = config_of(f);
  size_t positions = (size_t)f->batch * f->len_max;
  uint32_t rows = f->text_rows > f->image_rows ? f->text_rows : f->image_rows;
  uint32_t distinct = positions + f->batch < f->items ? (uint32_t)positions + f->batch : f->items;
  struct m2se_limits limits = {f->batch, (uint32_t)positions, distinct, distinct * rows, 0, f->threads};
  struct m2se_learner *learner;
  if (m2se_learner_new(&learner, &config, &limits, &error)) {
    fail(EX_SOFTWARE, "learner", error.text);
  }
  struct catalogue catalogue = catalogue_make(f);
  struct assembly work = {take(distinct, sizeof *work.items), take(f->items, sizeof *work.number),
                          take(positions, 4), take(f->batch, 4)};
  struct draw draws[DRAWS];
  for (uint32_t k = 0; k < DRAWS; k++) {
    draws[k] = draw_make(f, k);
  }
  double *times = take(f->steps, sizeof *times), flops = 0, total = 0, peak = sgemm_gflops(workers);
  struct m2se_step_result result;
  for (uint32_t step = 0; step < f->steps + 2; step++) {
    double begin = now_seconds();
    struct m2se_batch batch = assemble(&work, &catalogue, &draws[step % DRAWS], f);
    if (m2se_learner_step(learner, &batch, workers, 0, &result, &error) || !result.applied) {
      fail(EX_SOFTWARE, "step", *error.text ? error.text : "its gradient is not finite");
    }
    if (step >= 2) {
      times[step - 2] = now_seconds() - begin;
      total += times[step - 2];
      flops += result.flops / f->steps;
    }
  }
  double again = sgemm_gflops(workers), seconds = median(times, f->steps), rate = 1e-9 * flops / seconds;
  peak = again > peak ? again : peak;
  printf("{\"bench\": \"train\", \"engine\": \"m2se\", \"targets\": \"%s\", \"batch\": %u, \"threads\": %u, "
         "\"steps\": %u, \"seconds_per_step\": %.6f, \"examples_per_second\": %.1f, "
         "\"mflop_per_example\": %.2f, \"gflops\": %.2f, \"sgemm_peak_gflops\": %.2f, \"peak_share\": %.4f, "
         "\"peak_rss_bytes\": %.0f, \"blas\": \"%s\", \"simd\": \"%s\", \"loss\": %.6f}\n",
         f->targets == M2SE_TARGETS_ALL ? "all" : "last", f->batch, f->threads, f->steps, seconds,
         (double)f->batch * f->steps / total, 1e-6 * flops / f->batch, rate, peak, rate / peak,
         peak_rss_bytes(), m2se_blas_kernel(), m2se_simd_kernel(), result.losses.total);
  m2se_learner_free(learner);
}

/* ---- encode ---- */

struct encoding {
  const struct flags *flags;
  struct m2se_server **servers; /* [threads] */
  const struct m2se_weights *weights;
  const struct catalogue *catalogue;
  const struct draw *draw;
  float *states, *items, *users; /* of all; tasks write to their own part */
};

static uint32_t part(uint32_t n, uint32_t t, uint32_t parts) {
  return (uint32_t)((uint64_t)n * t / parts);
}

static void encode_items(void *arg, uint32_t t, uint32_t w) {
  struct encoding *e = arg;
  uint32_t first = part(e->flags->items, t, e->flags->threads);
  uint32_t last = part(e->flags->items, t + 1, e->flags->threads);
  size_t dim = m2se_server_dim(e->servers[w]);
  m2se_server_items(e->servers[w], e->weights, e->catalogue->items + first, last - first, NULL,
                    e->states + first * dim, e->items + first * dim);
}

static void encode_users(void *arg, uint32_t t, uint32_t w) {
  struct encoding *e = arg;
  uint32_t first = part(e->flags->batch, t, e->flags->threads);
  uint32_t last = part(e->flags->batch, t + 1, e->flags->threads);
  m2se_server_users(e->servers[w], e->weights, e->states, e->draw->ptr + first, e->draw->items, last - first,
                    e->users + first * (size_t)m2se_server_dim(e->servers[w]));
}

/* Median seconds of one run over everything. */
static double time_encoding(struct encoding *e, const struct m2se_workers *workers,
                            void (*task)(void *arg, uint32_t t, uint32_t w)) {
  double *times = take(e->flags->steps, sizeof *times);
  for (uint32_t k = 0; k < e->flags->steps + 2; k++) {
    double begin = now_seconds();
    workers->run(workers->pool, task, e, e->flags->threads);
    if (k >= 2) {
      times[k - 2] = now_seconds() - begin;
    }
  }
  double seconds = median(times, e->flags->steps);
  return seconds;
}

static void encode(const struct flags *f, const struct m2se_workers *workers) {
  struct m2se_error error = {0};
  struct m2se_config config = config_of(f);
  struct m2se_limits limits = {1, f->len_max, 1, 1, 0, 1};
  struct m2se_learner *learner;
  struct m2se_weights *weights;
  if (m2se_learner_new(&learner, &config, &limits, &error) ||
      m2se_weights_new(&weights, &config, 0, &error)) {
    fail(EX_SOFTWARE, "weights", error.text);
  }
  m2se_weights_copy(weights, learner, 0);
  struct catalogue catalogue = catalogue_make(f);
  struct draw draw = draw_make(f, 0);
  size_t dim = 2 * (size_t)config.h;
  struct encoding e = {f,
                       take(f->threads, sizeof *e.servers),
                       weights,
                       &catalogue,
                       &draw,
                       take(f->items * dim, 4),
                       take(f->items * dim, 4),
                       take(f->batch * dim, 4)};
  for (uint32_t w = 0; w < f->threads; w++) {
    if (m2se_server_new(&e.servers[w], &config, false, &error)) {
      fail(EX_SOFTWARE, "server", error.text);
    }
  }
  double peak = sgemm_gflops(workers);
  double items = time_encoding(&e, workers, encode_items), users = time_encoding(&e, workers, encode_users);
  printf("{\"bench\": \"encode\", \"users\": %u, \"items\": %u, \"threads\": %u, "
         "\"users_per_second\": %.1f, \"users_per_second_per_core\": %.1f, \"items_per_second\": %.1f, "
         "\"sgemm_peak_gflops\": %.2f, \"peak_rss_bytes\": %.0f, \"blas\": \"%s\", \"simd\": \"%s\"}\n",
         f->batch, f->items, f->threads, f->batch / users, f->batch / users / f->threads, f->items / items,
         peak, peak_rss_bytes(), m2se_blas_kernel(), m2se_simd_kernel());
  for (uint32_t w = 0; w < f->threads; w++) {
    m2se_server_free(e.servers[w]);
  }
  m2se_weights_free(weights);
  m2se_learner_free(learner);
}

int main(int count, char **arguments) {
  struct flags flags = parse(count, arguments);
  struct m2se_error error = {0};
  struct m2sed_pool *pool;
  if (m2se_blas_check(&error) || m2sed_pool_new(&pool, flags.threads, 0, &error)) {
    fail(EX_SOFTWARE, "start", error.text);
  }
  struct m2se_workers workers = m2sed_pool_workers(pool);
  if (!strcmp(flags.command, "train")) {
    train(&flags, &workers);
  } else if (!strcmp(flags.command, "encode")) {
    encode(&flags, &workers);
  } else if (!strcmp(flags.command, "ingest")) {
    flags.ingest.items = flags.items;
    flags.ingest.seed = flags.seed;
    if (m2se_bench_ingest(&flags.ingest, &error)) {
      fail(EX_UNAVAILABLE, "ingest", error.text);
    }
  } else if (!strcmp(flags.command, "store")) {
    if (m2se_bench_store(flags.items, flags.dim, flags.seed, &error)) {
      fail(EX_UNAVAILABLE, "store", error.text);
    }
  } else if (!strcmp(flags.command, "embed") || !strcmp(flags.command, "embed-image")) {
    bool images = flags.command[5] != 0;
    flags.embed.threads = flags.threads;
    flags.embed.steps = flags.steps;
    flags.embed.seed = flags.seed;
    if (!flags.embed.model) {
      fail(EX_USAGE, flags.command, "needs --model DIR");
    }
    if ((images ? m2se_bench_embed_image : m2se_bench_embed)(&flags.embed, &workers, &error)) {
      fail(EX_DATAERR, flags.command, error.text);
    }
  } else {
    fail(EX_USAGE, flags.command, "the commands are train, encode, ingest, store, embed and embed-image");
  }
  m2sed_pool_free(pool);
  give_back();
  return fflush(stdout) ? EX_IOERR : EX_OK;
}
