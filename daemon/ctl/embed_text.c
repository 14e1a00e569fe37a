/* m2sectl embed-text: the vectors of texts. */
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/jsonl.h"
#include "model/blas.h"
#include "model/text/bert.h"
#include "model/text/tokenizer.h"

struct embed {
  struct m2se_tokenizer *tokenizer;
  struct m2se_tokenizer_scratch *words;
  struct m2se_bert *bert;
  struct m2se_bert_scratch *scratch;
  uint32_t ids[M2SE_TOKENIZER_IDS_MAX], max_ids;
  enum m2se_pooling pooling;
  bool normalize;
  float *vector;
};

static int answer(void *context, const char *text, size_t size, struct m2se_json_writer *writer,
                  struct m2se_error *error) {
  struct embed *e = context;
  const uint32_t count = m2se_tokenizer_encode(e->tokenizer, e->words, text, size, e->max_ids, e->ids, NULL);
  int code = m2se_bert_encode(e->bert, e->scratch, e->ids, (uint32_t[]){0, count}, 1, e->pooling,
                              e->normalize, e->vector, error);
  if (code)
    return code;
  m2se_json_put_array(writer, "vector");
  for (uint32_t i = 0; i < m2se_bert_dim(e->bert); i++)
    m2se_json_put_double(writer, NULL, e->vector[i]);
  m2se_json_put_end(writer);
  return 0;
}

static int load(struct embed *e, const char *folder, struct m2se_error *error) {
  int code = m2se_blas_check(error);
  if (!code)
    code = m2se_tokenizer_load(&e->tokenizer, folder, error);
  if (!code)
    code = m2se_bert_load(&e->bert, folder, error);
  if (!code && m2se_tokenizer_ids(e->tokenizer) > m2se_bert_ids(e->bert))
    code = m2se_error_set(error, M2SE_ERANGE, "%s: the tokenizer has %u ids, the model %u", folder,
                          m2se_tokenizer_ids(e->tokenizer), m2se_bert_ids(e->bert));
  return code;
}

/* What the command line says, where it says something. */
static int read_options(const struct m2sed_ctl *ctl, struct embed *e) {
  const char *pooling = ctl->values[M2SED_CTL_POOLING];
  uint64_t max_ids = m2se_tokenizer_max_ids(e->tokenizer);
  const uint32_t most = m2se_bert_len_max(e->bert) < M2SE_TOKENIZER_IDS_MAX ? m2se_bert_len_max(e->bert)
                                                                            : M2SE_TOKENIZER_IDS_MAX;
  max_ids = max_ids < most ? max_ids : most;
  int status = m2sed_ctl_whole(ctl, M2SED_CTL_MAX, most, &max_ids);
  if (status)
    return status;
  if (max_ids < 2)
    return m2sed_ctl_fail(EX_USAGE, "--max: 2 at least, for the first and the last token");
  if (pooling && strcmp(pooling, "mean") != 0 && strcmp(pooling, "cls") != 0)
    return m2sed_ctl_fail(EX_USAGE, "--pooling: '%.40s', not mean or cls", pooling);
  e->pooling = !pooling                       ? m2se_bert_pooling(e->bert)
               : strcmp(pooling, "mean") == 0 ? M2SE_POOLING_MEAN
                                              : M2SE_POOLING_CLS;
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
  if (!status) {
    e.words = m2se_tokenizer_scratch_new();
    e.scratch = m2se_bert_scratch_new(e.bert, e.max_ids, e.max_ids);
    e.vector = calloc(m2se_bert_dim(e.bert), sizeof *e.vector);
    status = e.words && e.scratch && e.vector ? m2sed_ctl_each_text(ctl, answer, &e)
                                              : m2sed_ctl_fail(EX_OSERR, "out of memory");
  }
  free(e.vector);
  m2se_bert_scratch_free(e.scratch);
  m2se_bert_free(e.bert);
  m2se_tokenizer_scratch_free(e.words);
  m2se_tokenizer_free(e.tokenizer);
  return status;
}
