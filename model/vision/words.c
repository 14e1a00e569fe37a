#include "model/vision/words.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "model/encoder/folder.h"
#include "model/files/file.h"
#include "model/files/safetensors.h"
#include "model/files/utf8.h"
#include "model/kernels/kernels.h"
#include "model/text/tokenizer.h"
#include "model/vision/clip.h"

enum { DICTIONARY_BYTES_MAX = 8 << 20, BATCH = 64, TEMPLATE_BYTES_MAX = 256 };
static const char version[] =
    "1"; /* of the way vectors are made: another one does not read this one's files */

struct m2se_words {
  char *text;         /* the dictionary, a NUL behind every word */
  const char **words; /* [count], into text */
  uint32_t count, dim;
  float *vectors; /* [count, dim], of length 1 */
  bool computed, kept;
};

/* Where the vectors are kept, and what must be the same for them to be read. */
struct keep {
  char path[4096], model[M2SE_FOLDER_DIGEST], dictionary[M2SE_FOLDER_DIGEST];
};

/* ---- the dictionary ---- */

static int no_memory(struct m2se_error *error) {
  return m2se_error_set(error, M2SE_ENOMEM, "no memory for a dictionary");
}

/* Cuts text into its lines, without blanks around them. */
static int cut_lines(struct m2se_words *w, size_t size, struct m2se_error *error) {
  uint32_t line = 1;
  for (char *at = w->text, *end = w->text + size; at < end; line++) {
    char *stop = memchr(at, '\n', (size_t)(end - at));
    char *next = stop ? stop + 1 : end, *last = stop ? stop : end;
    while (at < last && strchr(" \t\r", *at))
      at++;
    while (last > at && strchr(" \t\r", last[-1]))
      last--;
    const size_t length = (size_t)(last - at);
    if (length > M2SE_WORD_BYTES_MAX)
      return m2se_error_set(error, M2SE_ELIMIT, "line %u: more than %d bytes", line, M2SE_WORD_BYTES_MAX);
    if (!m2se_utf8_valid(at, length) || memchr(at, '\0', length))
      return m2se_error_set(error, M2SE_EFORMAT, "line %u: not UTF-8 text", line);
    if (length && w->count == M2SE_WORDS_MAX)
      return m2se_error_set(error, M2SE_ELIMIT, "line %u: more than %d words", line, M2SE_WORDS_MAX);
    if (length) {
      *last = '\0'; /* at most where the line's end or the file's own NUL was */
      w->words[w->count++] = at;
    }
    at = next;
  }
  return w->count ? 0 : m2se_error_set(error, M2SE_EMISSING, "no words");
}

/* Reads the dictionary, and digests it together with the templates. */
static int read_dictionary(struct m2se_words *w, const char *path, const char *const *templates,
                           uint32_t count, char digest[M2SE_FOLDER_DIGEST], struct m2se_error *error) {
  size_t size;
  const char *slash = strrchr(path, '/');
  char folder[4096] = ".";
  if (slash)
    snprintf(folder, sizeof(folder), "%.*s", slash == path ? 1 : (int)(slash - path), path);
  int code = m2se_file_read(folder, slash ? slash + 1 : path, DICTIONARY_BYTES_MAX, &w->text, &size, error);
  if (code)
    return code;
  w->words = calloc(M2SE_WORDS_MAX, sizeof(*w->words));
  if (!w->words)
    return no_memory(error);
  XXH3_state_t *state = XXH3_createState();
  if (!state)
    return no_memory(error);
  XXH3_128bits_reset(state);
  XXH3_128bits_update(state, w->text, size);
  for (uint32_t i = 0; i < count; i++)
    XXH3_128bits_update(state, templates[i], strlen(templates[i]) + 1);
  const XXH128_hash_t hash = XXH3_128bits_digest(state);
  XXH3_freeState(state);
  snprintf(digest, M2SE_FOLDER_DIGEST, "%016llx%016llx", (unsigned long long)hash.high64,
           (unsigned long long)hash.low64);
  code = cut_lines(w, size, error);
  return code ? m2se_error_prefix(error, code, "%s", path) : 0;
}

/* ---- the kept file ---- */

static bool same(const struct m2se_safetensors *file, const char *key, const char *wanted) {
  const char *found = m2se_safetensors_metadata(file, key);
  return found && !strcmp(found, wanted);
}

/* True if there is a file, made of the same words by the same model, whole and finite. */
static bool read_kept(struct m2se_words *w, const struct keep *keep) {
  struct m2se_safetensors *file;
  const struct m2se_tensor *tensor;
  bool good = false;
  if (m2se_safetensors_open(&file, keep->path, NULL))
    return false;
  if (same(file, "version", version) && same(file, "model", keep->model) &&
      same(file, "dictionary", keep->dictionary) &&
      !m2se_safetensors_require(file, "vectors", 2, (uint64_t[]){w->count, M2SE_ANY}, &tensor, NULL) &&
      tensor->dtype == M2SE_F32 && tensor->count) {
    w->dim = (uint32_t)tensor->shape[1];
    w->vectors = m2se_floats_new(tensor->count);
    if (w->vectors) {
      memcpy(w->vectors, tensor->data, tensor->bytes);
      good = isfinite(m2se_kernels_best()->sum_squares(w->vectors, tensor->count));
    }
  }
  m2se_safetensors_close(file);
  if (!good) {
    free(w->vectors);
    w->vectors = NULL;
  }
  return good;
}

static bool write_kept(const struct m2se_words *w, const struct keep *keep) {
  char path[4200];
  snprintf(path, sizeof(path), "%s.new", keep->path);
  const struct m2se_tensor tensor = {
      .name = "vectors", .dtype = M2SE_F32, .rank = 2, .shape = {w->count, w->dim}, .data = w->vectors};
  const struct m2se_metadata metadata[] = {
      {"version", version}, {"model", keep->model}, {"dictionary", keep->dictionary}};
  const struct m2se_safetensors_content content = {&tensor, 1, metadata, 3};
  if (m2se_safetensors_write(path, &content, true, NULL))
    return false;
  if (rename(path, keep->path) == 0)
    return true;
  (void)remove(path);
  return false;
}

/* ---- encoding ---- */

/* What encoding needs. */
struct encoding {
  struct m2se_tokenizer *tokenizer;
  struct m2se_tokenizer_scratch *words;
  struct m2se_clip *clip;
  struct m2se_clip_scratch *scratch;
  uint32_t ptr[BATCH + 1], *ids; /* [BATCH, len_max] */
  float *vectors;                /* [BATCH, dim] */
};

static void encoding_free(struct encoding *e) {
  m2se_tokenizer_free(e->tokenizer);
  m2se_tokenizer_scratch_free(e->words);
  m2se_clip_scratch_free(e->scratch);
  m2se_clip_free(e->clip);
  free(e->ids);
  free(e->vectors);
}

static int encoding_new(struct encoding *e, const char *folder, struct m2se_error *error) {
  int code = m2se_tokenizer_load(&e->tokenizer, folder, error);
  if (!code)
    code = m2se_clip_load(&e->clip, folder, M2SE_CLIP_TEXT, error);
  if (code)
    return code;
  if (m2se_tokenizer_ids(e->tokenizer) > m2se_clip_ids(e->clip))
    return m2se_error_set(error, M2SE_ERANGE, "%s: the tokenizer has %u ids, the model %u", folder,
                          m2se_tokenizer_ids(e->tokenizer), m2se_clip_ids(e->clip));
  e->words = m2se_tokenizer_scratch_new();
  e->scratch = m2se_clip_scratch_new(e->clip, M2SE_CLIP_TEXT, BATCH);
  e->ids = calloc((size_t)BATCH * m2se_clip_len_max(e->clip), sizeof(*e->ids));
  e->vectors = m2se_floats_new((size_t)BATCH * m2se_clip_dim(e->clip));
  return e->words && e->scratch && e->ids && e->vectors ? 0 : no_memory(error);
}

/* A template with the word in it; returns its length. */
static size_t fill_in(char *text, size_t room, const char *template, const char *word) {
  const char *gap = strstr(template, "{}");
  return (size_t)snprintf(text, room, "%.*s%s%s", (int)(gap - template), template, word, gap + 2);
}

/* Adds the vectors of words first .. first + count in one template to theirs. */
static int add_template(struct m2se_words *w, struct encoding *e, const char *template, uint32_t first,
                        uint32_t count, struct m2se_error *error) {
  const uint32_t len_max = m2se_clip_len_max(e->clip), limit = m2se_tokenizer_max_ids(e->tokenizer);
  for (uint32_t i = 0; i < count; i++) {
    char text[M2SE_WORD_BYTES_MAX + TEMPLATE_BYTES_MAX + 1];
    const size_t size = fill_in(text, sizeof(text), template, w->words[first + i]);
    e->ptr[i + 1] =
        e->ptr[i] + m2se_tokenizer_encode(e->tokenizer, e->words, text, size,
                                          limit < len_max ? limit : len_max, e->ids + e->ptr[i], NULL);
  }
  int code = m2se_clip_encode_texts(e->clip, e->scratch, e->ids, e->ptr, count, true, e->vectors, error);
  if (!code)
    m2se_kernels_best()->add(w->vectors + (size_t)first * w->dim, e->vectors, (size_t)count * w->dim);
  return code;
}

static int compute(struct m2se_words *w, const char *folder, const char *const *templates, uint32_t count,
                   struct m2se_error *error) {
  struct encoding e = {0};
  int code = encoding_new(&e, folder, error);
  if (!code) {
    w->dim = m2se_clip_dim(e.clip);
    w->vectors = m2se_floats_new((size_t)w->count * w->dim);
    code = w->vectors ? 0 : no_memory(error);
  }
  for (uint32_t first = 0; !code && first < w->count; first += BATCH) {
    const uint32_t some = w->count - first < BATCH ? w->count - first : BATCH;
    memset(w->vectors + (size_t)first * w->dim, 0, (size_t)some * w->dim * sizeof(float));
    for (uint32_t t = 0; !code && t < count; t++)
      code = add_template(w, &e, templates[t], first, some, error);
    for (uint32_t i = first; !code && i < first + some; i++) {
      float inverse, *vector = w->vectors + (size_t)i * w->dim;
      m2se_kernels_best()->unit_forward(vector, w->dim, &inverse, vector, w->dim, 1, w->dim);
    }
  }
  w->computed = !code;
  encoding_free(&e);
  return code;
}

static int check_templates(const char *const *templates, uint32_t count, struct m2se_error *error) {
  if (count > M2SE_WORD_TEMPLATES_MAX)
    return m2se_error_set(error, M2SE_ELIMIT, "%u templates, %d at most", count, M2SE_WORD_TEMPLATES_MAX);
  for (uint32_t i = 0; i < count; i++)
    if (!strstr(templates[i], "{}") || strlen(templates[i]) > TEMPLATE_BYTES_MAX)
      return m2se_error_set(error, M2SE_EINVAL, "template '%.80s': at most %d bytes, with {} for the word",
                            templates[i], TEMPLATE_BYTES_MAX);
  return 0;
}

static int load(struct m2se_words *w, const char *folder, const char *dictionary,
                const char *const *templates, uint32_t count, struct m2se_error *error) {
  struct keep keep;
  int code = check_templates(templates, count, error);
  if (!code)
    code = read_dictionary(w, dictionary, templates, count, keep.dictionary, error);
  if (!code)
    code = m2se_folder_digest(folder, keep.model, error);
  if (code)
    return code;
  /* By dictionary, so that two of them do not take turns in throwing each other's vectors away. */
  const int length =
      snprintf(keep.path, sizeof(keep.path), "%s/words-%.16s.safetensors", folder, keep.dictionary);
  if ((size_t)length >= sizeof(keep.path))
    return m2se_error_set(error, M2SE_ELIMIT, "%s: a path that is too long", folder);
  w->kept = read_kept(w, &keep);
  if (w->kept)
    return 0;
  code = compute(w, folder, templates, count, error);
  if (!code)
    w->kept = write_kept(w, &keep);
  return code;
}

int m2se_words_load(struct m2se_words **words, const char *folder, const char *dictionary,
                    const char *const *templates, uint32_t count, struct m2se_error *error) {
  static const char *const alone[] = {"{}"};
  *words = NULL;
  struct m2se_words *w = calloc(1, sizeof(*w));
  if (!w)
    return no_memory(error);
  int code = load(w, folder, dictionary, count ? templates : alone, count ? count : 1, error);
  if (code) {
    m2se_words_free(w);
    return code;
  }
  *words = w;
  return 0;
}

uint32_t m2se_words_cut_templates(char *text, const char *templates[M2SE_WORD_TEMPLATES_MAX + 1]) {
  uint32_t count = 0;
  char *rest = text[0] ? text : NULL;
  while (rest && count <= M2SE_WORD_TEMPLATES_MAX)
    templates[count++] = strsep(&rest, "|");
  return count;
}

void m2se_words_free(struct m2se_words *words) {
  if (!words)
    return;
  free(words->text);
  free(words->words);
  free(words->vectors);
  free(words);
}

/* ---- asking ---- */

uint32_t m2se_words_count(const struct m2se_words *words) {
  return words->count;
}

const char *m2se_words_at(const struct m2se_words *words, uint32_t index) {
  assert(index < words->count);
  return words->words[index];
}

uint32_t m2se_words_dim(const struct m2se_words *words) {
  return words->dim;
}

bool m2se_words_computed(const struct m2se_words *words) {
  return words->computed;
}

bool m2se_words_kept(const struct m2se_words *words) {
  return words->kept;
}

uint32_t m2se_words_best(const struct m2se_words *words, const float *picture, uint32_t n,
                         struct m2se_word_score *best) {
  assert(n <= M2SE_WORDS_BEST_MAX);
  const struct m2se_kernels *k = m2se_kernels_best();
  uint32_t found = 0;
  for (uint32_t i = 0; i < words->count; i++) {
    const float score = k->dot(words->vectors + (size_t)i * words->dim, picture, words->dim);
    uint32_t place = found;
    while (place > 0 && score > best[place - 1].score)
      place--;
    if (place == n)
      continue;
    found += found < n;
    memmove(best + place + 1, best + place, (found - place - 1) * sizeof(*best));
    best[place] = (struct m2se_word_score){i, score};
  }
  return found;
}

size_t m2se_words_join(const struct m2se_words *words, const struct m2se_word_score *best, uint32_t n,
                       char *text, size_t room) {
  assert(room >= (size_t)n * (M2SE_WORD_BYTES_MAX + 1) && room > 0);
  size_t length = 0;
  text[0] = '\0';
  for (uint32_t i = 0; i < n; i++)
    length += (size_t)snprintf(text + length, room - length, "%s%s", i ? " " : "",
                               m2se_words_at(words, best[i].word));
  return length;
}
