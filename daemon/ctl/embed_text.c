/* m2sectl embed-text: the vectors of texts. */
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/jsonl.h"
#include "model/blas.h"
#include "model/text/bert.h"
#include "model/text/tokenizer.h"
#include "model/vision/clip.h"

struct embed {
  struct m2se_tokenizer *tokenizer;
  struct m2se_tokenizer_scratch *words;
  struct m2se_bert *bert; /* NULL: the folder is a CLIP */
  struct m2se_bert_scratch *scratch;
  struct m2se_clip *clip;
  struct m2se_clip_scratch *clip_scratch;
  uint32_t dim, len_max, model_ids;
  uint32_t ids[M2SE_TOKENIZER_IDS_MAX], max_ids;
  enum m2se_pooling pooling;
  bool normalize;
  float *vector;
};

static int answer(void *context, const char *text, size_t size, struct m2se_json_writer *writer,
                  struct m2se_error *error) {
  struct embed *e = context;
  const uint32_t count = m2se_tokenizer_encode(e->tokenizer, e->words, text, size, e->max_ids, e->ids, NULL);
  const uint32_t ptr[] = {0, count};
  int code =
      e->bert
          ? m2se_bert_encode(e->bert, e->scratch, e->ids, ptr, 1, e->pooling, e->normalize, e->vector, error)
          : m2se_clip_encode_texts(e->clip, e->clip_scratch, e->ids, ptr, 1, e->normalize, e->vector, error);
  if (code)
    return code;
  m2se_json_put_array(writer, "vector");
  for (uint32_t i = 0; i < e->dim; i++)
    m2se_json_put_double(writer, NULL, e->vector[i]);
  m2se_json_put_end(writer);
  return 0;
}

static int load_model(struct embed *e, const char *folder, struct m2se_error *error) {
  if (m2se_clip_is_folder(folder)) {
    int code = m2se_clip_load(&e->clip, folder, M2SE_CLIP_TEXT, error);
    if (code)
      return code;
    e->dim = m2se_clip_dim(e->clip);
    e->len_max = m2se_clip_len_max(e->clip);
    e->model_ids = m2se_clip_ids(e->clip);
    return 0;
  }
  int code = m2se_bert_load(&e->bert, folder, error);
  if (code)
    return code;
  e->dim = m2se_bert_dim(e->bert);
  e->len_max = m2se_bert_len_max(e->bert);
  e->model_ids = m2se_bert_ids(e->bert);
  return 0;
}

static int load(struct embed *e, const char *folder, struct m2se_error *error) {
  int code = m2se_blas_check(error);
  if (!code)
    code = m2se_tokenizer_load(&e->tokenizer, folder, error);
  if (!code)
    code = load_model(e, folder, error);
  if (!code && m2se_tokenizer_ids(e->tokenizer) > e->model_ids)
    code = m2se_error_set(error, M2SE_ERANGE, "%s: the tokenizer has %u ids, the model %u", folder,
                          m2se_tokenizer_ids(e->tokenizer), e->model_ids);
  return code;
}

static bool take_memory(struct embed *e) {
  e->words = m2se_tokenizer_scratch_new();
  e->vector = calloc(e->dim, sizeof *e->vector);
  if (e->bert)
    e->scratch = m2se_bert_scratch_new(e->bert, e->max_ids, e->max_ids);
  else
    e->clip_scratch = m2se_clip_scratch_new(e->clip, M2SE_CLIP_TEXT, 1);
  return e->words && e->vector && (e->scratch || e->clip_scratch);
}

static void give_back(struct embed *e) {
  free(e->vector);
  m2se_bert_scratch_free(e->scratch);
  m2se_bert_free(e->bert);
  m2se_clip_scratch_free(e->clip_scratch);
  m2se_clip_free(e->clip);
  m2se_tokenizer_scratch_free(e->words);
  m2se_tokenizer_free(e->tokenizer);
}

/* What the command line says, where it says something. */
static int read_options(const struct m2sed_ctl *ctl, struct embed *e) {
  const char *pooling = ctl->values[M2SED_CTL_POOLING];
  uint64_t max_ids = m2se_tokenizer_max_ids(e->tokenizer);
  const uint32_t most = e->len_max < M2SE_TOKENIZER_IDS_MAX ? e->len_max : M2SE_TOKENIZER_IDS_MAX;
  max_ids = max_ids < most ? max_ids : most;
  int status = m2sed_ctl_whole(ctl, M2SED_CTL_MAX, most, &max_ids);
  if (status)
    return status;
  if (max_ids < 2)
    return m2sed_ctl_fail(EX_USAGE, "--max: 2 at least, for the first and the last token");
  if (pooling && !e->bert)
    return m2sed_ctl_fail(EX_USAGE, "--pooling: a CLIP's texts are taken at their end");
  if (pooling && strcmp(pooling, "mean") != 0 && strcmp(pooling, "cls") != 0)
    return m2sed_ctl_fail(EX_USAGE, "--pooling: '%.40s', not mean or cls", pooling);
  if (e->bert)
    e->pooling = m2se_bert_pooling(e->bert);
  if (pooling)
    e->pooling = strcmp(pooling, "mean") == 0 ? M2SE_POOLING_MEAN : M2SE_POOLING_CLS;
  e->normalize = !m2sed_ctl_has(ctl, M2SED_CTL_NO_NORMALIZE);
  e->max_ids = (uint32_t)max_ids;
  return 0;
}

int m2sed_ctl_embed_text(struct m2sed_ctl *ctl) {
  static struct embed e;
  struct m2se_error error = {0};
  if (!m2sed_ctl_has(ctl, M2SED_CTL_MODEL))
    return m2sed_ctl_fail(EX_USAGE, "embed-text needs --model DIR");
  int status = load(&e, ctl->values[M2SED_CTL_MODEL], &error) ? m2sed_ctl_fail_error(&error) : 0;
  if (!status)
    status = read_options(ctl, &e);
  if (!status)
    status =
        take_memory(&e) ? m2sed_ctl_each_text(ctl, answer, &e) : m2sed_ctl_fail(EX_OSERR, "out of memory");
  give_back(&e);
  return status;
}
