#include "daemon/tools/m2se_bench_store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/features/store.h"

enum { COMMIT_ITEMS = 64, TEXT_BYTES = 60, PICTURE_BYTES = 100 };

struct work {
  struct m2sed_store *store;
  struct m2sed_store_item item;
  uint32_t items, dim, seed;
  float row[M2SED_STORE_DIM_MAX];
  double written_s, known_s, read_s; /* of all items */
};

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int put(struct work *work, uint32_t n, const char *id, struct m2se_error *error) {
  char text[TEXT_BYTES] = "", picture[PICTURE_BYTES] = "";
  snprintf(text, sizeof text, "a text of item %u, seed %u", n, work->seed);
  snprintf(picture, sizeof picture, "a picture of item %u, seed %u", n, work->seed);
  struct m2sed_content contents[] = {{M2SED_CONTENT_TEXT, text, sizeof text},
                                     {M2SED_CONTENT_PICTURE, picture, sizeof picture}};
  return m2sed_store_put_item(work->store, id, 0, contents, 2, error);
}

/* As the daemon does: a commit for what came together, another for the rows of a mini-batch. */
static int write_items(struct work *work, uint32_t first, uint32_t end, struct m2se_error *error) {
  char id[16];
  int code = 0;
  for (uint32_t n = first; n < end && code >= 0; n++) {
    snprintf(id, sizeof id, "%u", n);
    code = put(work, n, id, error);
  }
  code = code < 0 ? code : m2sed_store_commit(work->store, error);
  for (uint32_t n = first; n < end && code >= 0; n++) {
    snprintf(id, sizeof id, "%u", n);
    code = m2sed_store_get_item(work->store, id, &work->item, error);
    for (uint32_t i = 0; i < 2 && code >= 0; i++) {
      work->row[0] = (float)(2 * n + i);
      code = m2sed_store_put_row(work->store, work->item.contents[i].digest, work->row, work->dim, error);
    }
    code = code < 0 ? code : m2sed_store_finish_item(work->store, id, error);
  }
  return code < 0 ? code : m2sed_store_commit(work->store, error);
}

static int run(struct work *work, struct m2se_error *error) {
  char id[16];
  double begin = now();
  int code = 0;
  for (uint32_t n = 0; n < work->items && code == 0; n += COMMIT_ITEMS) {
    uint32_t end = n + COMMIT_ITEMS < work->items ? n + COMMIT_ITEMS : work->items;
    code = write_items(work, n, end, error);
  }
  work->written_s = now() - begin;
  begin = now();
  for (uint32_t n = 0; n < work->items && code == 0; n++) {
    snprintf(id, sizeof id, "%u", n);
    code = put(work, n, id, error);
  }
  work->known_s = now() - begin;
  begin = now();
  for (uint32_t n = 0; n < work->items && code == 0; n++) {
    uint32_t which = (uint32_t)((n * UINT64_C(2654435761)) % work->items); /* here and there */
    snprintf(id, sizeof id, "%u", which);
    code = m2sed_store_get_item(work->store, id, &work->item, error);
    if (code == 1) {
      memcpy(work->row, work->item.contents[1].row, work->dim * sizeof *work->row);
      code = work->row[0] == (float)(2 * which + 1)
                 ? 0
                 : m2se_error_set(error, M2SE_EFORMAT, "item %u has another row", which);
    }
  }
  work->read_s = now() - begin;
  return code < 0 ? code : m2sed_store_check(work->store, error);
}

int m2se_bench_store(uint32_t items, uint32_t dim, uint32_t seed, struct m2se_error *error) {
  char folder[] = "m2se_bench-store-XXXXXX", path[64];
  struct work *work = calloc(1, sizeof *work);
  if (!work || !mkdtemp(folder)) {
    free(work);
    return m2se_error_set(error, M2SE_EIO, "a folder for the store: %s", strerror(errno));
  }
  work->items = items;
  work->dim = dim;
  work->seed = seed;
  struct m2sed_store_options options = {.folder = folder, .bytes_max = UINT64_C(64) << 30};
  int code = m2sed_store_open(&work->store, &options, error);
  code = code ? code : run(work, error);
  struct m2sed_store_counts counts;
  code = code ? code : m2sed_store_count(work->store, &counts, error);
  if (code == 0) {
    printf("{\"bench\": \"store\", \"items\": %u, \"dim\": %u, \"bytes\": %llu, \"bytes_per_item\": %.0f, "
           "\"rows_bytes_per_item\": %u, \"write_us_per_item\": %.1f, \"known_us_per_item\": %.2f, "
           "\"read_us_per_item\": %.2f}\n",
           items, dim, (unsigned long long)counts.bytes, (double)counts.bytes / items, 8 * dim,
           work->written_s / items * 1e6, work->known_s / items * 1e6, work->read_s / items * 1e6);
  }
  m2sed_store_close(work->store);
  static const char *const files[] = {"/data.mdb", "/lock.mdb", ""};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    snprintf(path, sizeof path, "%s%s", folder, files[i]);
    remove(path);
  }
  free(work);
  return code;
}
