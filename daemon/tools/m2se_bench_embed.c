#include "daemon/tools/m2se_bench_embed.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "model/blas.h"
#include "model/random.h"
#include "model/text/bert.h"
#include "model/vision/clip.h"

enum { SQUARE = 1024, PEAK_TRIES = 3 };

/* One thread's work and what it took. */
struct task {
  void *scratch;
  float *vectors;
  float *squares; /* three matrices, for the machine's limit */
  double cpu_seconds, peak_seconds;
};

struct bench {
  const struct m2se_bench_embed_flags *flags;
  struct m2se_bert *bert;
  struct m2se_clip *clip; /* NULL: texts */
  float *pixels;          /* [batch, 3, size, size] */
  uint32_t *ids, *ptr;
  struct task *tasks; /* [threads] */
  double flops;       /* of a call */
  uint32_t dim;
};

static double thread_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The machine's limit in between, so that both meet the same neighbours and clock speeds. */
static void measure_peak(struct task *task) {
  for (uint32_t i = 0; i < PEAK_TRIES; i++) {
    double begin = thread_seconds();
    m2se_blas_square(SQUARE, task->squares, task->squares + SQUARE * SQUARE,
                     task->squares + 2 * SQUARE * SQUARE);
    double seconds = thread_seconds() - begin;
    if (task->peak_seconds == 0 || seconds < task->peak_seconds)
      task->peak_seconds = seconds;
  }
}

static void embed(struct bench *b, struct task *task) {
  if (b->clip) {
    m2se_clip_encode_images(b->clip, task->scratch, b->pixels, b->flags->batch, true, task->vectors, NULL);
    return;
  }
  m2se_bert_encode(b->bert, task->scratch, b->ids, b->ptr, b->flags->batch, m2se_bert_pooling(b->bert), true,
                   task->vectors, NULL);
}

static void run_task(void *arg, uint32_t t, uint32_t w) {
  (void)w;
  struct bench *b = arg;
  struct task *task = &b->tasks[t];
  measure_peak(task);
  embed(b, task); /* caches and pages are warm then */
  double begin = thread_seconds();
  for (uint32_t i = 0; i < b->flags->steps; i++)
    embed(b, task);
  task->cpu_seconds = thread_seconds() - begin;
  measure_peak(task);
}

static void report(const struct bench *b, const char *name) {
  const struct m2se_bench_embed_flags *f = b->flags;
  double cpu = 0, peak = 0;
  for (uint32_t t = 0; t < f->threads; t++) {
    cpu += b->tasks[t].cpu_seconds;
    peak += 2.0 * SQUARE * SQUARE * SQUARE / b->tasks[t].peak_seconds * 1e-9 / f->threads;
  }
  const double calls = (double)f->steps * f->threads, gflops = calls * b->flops / cpu * 1e-9;
  printf(
      "{\"bench\": \"%s\", \"batch\": %u, \"tokens_min\": %u, \"tokens\": %u, \"threads\": %u, \"dim\": %u, "
      "\"items_per_cpu_second\": %.2f, \"gflops\": %.2f, \"sgemm_peak_gflops\": %.2f, "
      "\"peak_share\": %.3f, \"blas\": \"%s\", \"simd\": \"%s\"}\n",
      name, f->batch, f->tokens_min ? f->tokens_min : f->tokens, f->tokens, f->threads, b->dim,
      calls * f->batch / cpu, gflops, peak, gflops / peak, m2se_blas_kernel(), m2se_simd_kernel());
}

/* Lengths spread evenly and in no order; ids anywhere in the vocabulary. */
static int draw_texts(struct bench *b) {
  const struct m2se_bench_embed_flags *f = b->flags;
  const uint32_t low = f->tokens_min ? f->tokens_min : f->tokens, spread = f->tokens - low;
  uint32_t state = f->seed * 2654435761u + 1;
  b->ptr = calloc((size_t)f->batch + 1, sizeof *b->ptr);
  b->ids = calloc((size_t)f->batch * f->tokens, sizeof *b->ids);
  if (!b->ptr || !b->ids)
    return -1;
  for (uint32_t i = 0; i < f->batch; i++) {
    const uint32_t place = (uint32_t)((uint64_t)i * 7 % f->batch);
    b->ptr[i + 1] = b->ptr[i] + low + (f->batch > 1 ? place * spread / (f->batch - 1) : spread);
  }
  for (uint32_t r = 0; r < b->ptr[f->batch]; r++) {
    state = state * 1664525u + 1013904223u;
    b->ids[r] = (uint32_t)((uint64_t)state * m2se_bert_ids(b->bert) >> 32);
  }
  return 0;
}

static int make_task(struct bench *b, struct task *task) {
  const struct m2se_bench_embed_flags *f = b->flags;
  if (b->clip) {
    task->scratch = m2se_clip_scratch_new(b->clip, M2SE_CLIP_VISION, f->batch);
  } else {
    const uint32_t all = b->ptr[f->batch], rows = f->rows && f->rows < all ? f->rows : all;
    task->scratch = m2se_bert_scratch_new(b->bert, rows < f->tokens ? f->tokens : rows, f->tokens);
  }
  task->vectors = calloc((size_t)f->batch * b->dim, sizeof *task->vectors);
  task->squares = calloc(3 * (size_t)SQUARE * SQUARE, sizeof *task->squares);
  if (!task->scratch || !task->vectors || !task->squares)
    return -1;
  for (size_t i = 0; i < 3 * (size_t)SQUARE * SQUARE; i++)
    task->squares[i] = (float)(i % 13) - 6;
  return 0;
}

/* Runs and reports, and takes everything away. */
static int run(struct bench *b, const char *name, const struct m2se_workers *workers, int code,
               struct m2se_error *error) {
  const struct m2se_bench_embed_flags *f = b->flags;
  b->tasks = calloc(f->threads, sizeof *b->tasks);
  for (uint32_t t = 0; !code && t < f->threads; t++)
    if (!b->tasks || make_task(b, &b->tasks[t]))
      code = m2se_error_set(error, M2SE_ENOMEM, "no memory for %u at a time", f->batch);
  if (!code) {
    workers->run(workers->pool, run_task, b, f->threads);
    report(b, name);
  }
  for (uint32_t t = 0; b->tasks && t < f->threads; t++) {
    if (b->clip)
      m2se_clip_scratch_free(b->tasks[t].scratch);
    else
      m2se_bert_scratch_free(b->tasks[t].scratch);
    free(b->tasks[t].vectors);
    free(b->tasks[t].squares);
  }
  free(b->tasks);
  free(b->ids);
  free(b->ptr);
  free(b->pixels);
  m2se_bert_free(b->bert);
  m2se_clip_free(b->clip);
  return code;
}

int m2se_bench_embed(const struct m2se_bench_embed_flags *flags, const struct m2se_workers *workers,
                     struct m2se_error *error) {
  struct bench b = {.flags = flags};
  int code = m2se_bert_load(&b.bert, flags->model, error);
  if (!code && flags->tokens > m2se_bert_len_max(b.bert))
    code =
        m2se_error_set(error, M2SE_EINVAL, "--tokens: the model takes %u at most", m2se_bert_len_max(b.bert));
  if (!code && draw_texts(&b))
    code = m2se_error_set(error, M2SE_ENOMEM, "no memory for %u texts", flags->batch);
  if (!code) {
    b.dim = m2se_bert_dim(b.bert);
    b.flops = m2se_bert_flops(b.bert, b.ptr, flags->batch, m2se_bert_pooling(b.bert));
  }
  return run(&b, "embed", workers, code, error);
}

int m2se_bench_embed_image(const struct m2se_bench_embed_flags *flags, const struct m2se_workers *workers,
                           struct m2se_error *error) {
  struct bench b = {.flags = flags};
  int code = m2se_clip_load(&b.clip, flags->model, M2SE_CLIP_VISION, error);
  if (!code) {
    const size_t size = m2se_clip_image_size(b.clip), numbers = flags->batch * 3 * size * size;
    b.dim = m2se_clip_dim(b.clip);
    b.flops = m2se_clip_image_flops(b.clip, flags->batch);
    b.pixels = calloc(numbers, sizeof *b.pixels);
    if (!b.pixels)
      code = m2se_error_set(error, M2SE_ENOMEM, "no memory for %u pictures", flags->batch);
    for (size_t i = 0; b.pixels && i < numbers; i++)
      b.pixels[i] = (float)(i * 2654435761u % 1000) / 500 - 1;
  }
  return run(&b, "embed-image", workers, code, error);
}
