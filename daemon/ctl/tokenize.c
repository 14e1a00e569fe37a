/* m2sectl tokenize: what a model's tokenizer makes of texts. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/jsonl.h"
#include "model/text/tokenizer.h"

#define IDS_MAX 100000 /* more than the longest text that is read can have */

struct tokenize {
  struct m2se_tokenizer *tokenizer;
  struct m2se_tokenizer_scratch *scratch;
  uint32_t *ids, max_ids;
};

static int answer(void *context, const char *text, size_t size, struct m2se_json_writer *writer,
                  struct m2se_error *error) {
  (void)error;
  struct tokenize *t = context;
  uint32_t count = m2se_tokenizer_encode(t->tokenizer, t->scratch, text, size, t->max_ids, t->ids, NULL);
  m2se_json_put_array(writer, "tokens");
  for (uint32_t i = 1; i + 1 < count; i++) {
    size_t length = 0;
    const char *token = m2se_tokenizer_token(t->tokenizer, t->ids[i], &length);
    m2se_json_put_string(writer, NULL, token, length);
  }
  m2se_json_put_end(writer);
  m2se_json_put_array(writer, "ids");
  for (uint32_t i = 0; i < count; i++) {
    m2se_json_put_int64(writer, NULL, t->ids[i]);
  }
  m2se_json_put_end(writer);
  return 0;
}

int m2sed_ctl_tokenize(struct m2sed_ctl *ctl) {
  struct tokenize t = {0};
  struct m2se_error error = {0};
  if (!m2sed_ctl_has(ctl, M2SED_CTL_MODEL)) {
    return m2sed_ctl_fail(EX_USAGE, "tokenize needs --model DIR");
  }
  if (m2se_tokenizer_load(&t.tokenizer, ctl->values[M2SED_CTL_MODEL], &error)) {
    return m2sed_ctl_fail_error(&error);
  }
  uint64_t max_ids = m2se_tokenizer_max_ids(t.tokenizer);
  int status = m2sed_ctl_whole(ctl, M2SED_CTL_MAX, IDS_MAX, &max_ids);
  if (!status && max_ids < 2) {
    status = m2sed_ctl_fail(EX_USAGE, "--max: 2 at least, for the first and the last token");
  }
  t.max_ids = (uint32_t)max_ids;
  t.scratch = m2se_tokenizer_scratch_new();
  t.ids = malloc(max_ids * sizeof(t.ids[0]));
  if (!status && (!t.scratch || !t.ids)) {
    status = m2sed_ctl_fail(EX_OSERR, "out of memory");
  }
  status = status ? status : m2sed_ctl_each_text(ctl, answer, &t);
  free(t.ids);
  m2se_tokenizer_scratch_free(t.scratch);
  m2se_tokenizer_free(t.tokenizer);
  return status;
}
