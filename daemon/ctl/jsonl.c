#include "daemon/ctl/jsonl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "model/text/unicode.h"

/* Valid UTF-8 of whatever a line holds: the caller's to free, NULL without memory. */
static char *mend(const char *line, size_t size, size_t *mended_size) {
  char *mended = malloc(3 * size + 1); /* a broken byte becomes three */
  size_t length = 0;
  *mended_size = 0;
  for (size_t i = 0; mended && i < size; i += length) {
    uint32_t character = m2se_unicode_decode(line + i, size - i, &length);
    *mended_size += m2se_unicode_encode(character, mended + *mended_size);
  }
  return mended;
}

/* One line of output: the answer, or what was wrong. */
static int show_answer(m2sed_ctl_answer *answer, void *context, const char *text, size_t size,
                       struct m2se_error *error) {
  struct m2se_json_writer *writer = m2se_json_writer_new(0);
  m2se_json_put_object(writer, NULL);
  int code = error->code;
  if (!code) {
    code = answer(context, text, size, writer, error);
    if (code) { /* without what it may have put already */
      m2se_json_writer_free(writer);
      writer = m2se_json_writer_new(0);
      m2se_json_put_object(writer, NULL);
    }
  }
  if (code) {
    m2se_json_put_string(writer, "error", error->text, strlen(error->text));
  }
  m2se_json_put_end(writer);
  return m2sed_ctl_show_json(writer);
}

static int answer_line(m2sed_ctl_answer *answer, void *context, const char *line, size_t size) {
  struct m2se_json_limits limits = M2SE_JSON_LIMITS_DEFAULT;
  struct m2se_error error = {0};
  struct m2se_json *root = NULL;
  const char *text = NULL;
  size_t mended_size = 0, text_size = 0;
  char *mended = mend(line, size, &mended_size);
  if (!mended) {
    return m2sed_ctl_fail(EX_OSERR, "out of memory");
  }
  limits.nul_allowed = true;
  int code = m2se_json_parse(&root, mended, mended_size, &limits, &error);
  if (!code) {
    (void)m2se_json_as_string(m2se_json_get(root, "text"), "text", &text, &text_size, &error);
  }
  int status = show_answer(answer, context, text, text_size, &error);
  m2se_json_free(root);
  free(mended);
  return status;
}

int m2sed_ctl_each_text(struct m2sed_ctl *ctl, m2sed_ctl_answer *answer, void *context) {
  bool lines = m2sed_ctl_has(ctl, M2SED_CTL_JSONL);
  if (lines == (ctl->argument_count > 0)) {
    return m2sed_ctl_fail(EX_USAGE, "%s takes either a text or --jsonl", ctl->command->words);
  }
  if (!lines) {
    struct m2se_error error = {0};
    int status = show_answer(answer, context, ctl->arguments[0], strlen(ctl->arguments[0]), &error);
    return status ? status : m2sed_ctl_exit_status(error.code);
  }
  char *line = NULL;
  size_t room = 0;
  int status = 0;
  for (ssize_t size; !status && (size = getline(&line, &room, stdin)) >= 0;) {
    status = answer_line(answer, context, line, (size_t)size);
  }
  if (!status && ferror(stdin)) {
    status = m2sed_ctl_fail(EX_IOERR, "standard input: %s", strerror(errno));
  }
  free(line);
  return status;
}
