/* The loop of the commands that answer texts: `COMMAND --jsonl` reads one JSON object {"text": …} a line from
 * standard input and writes one JSON object a line, in order; `COMMAND TEXT` answers one text.
 */
#ifndef M2SED_CTL_JSONL_H
#define M2SED_CTL_JSONL_H

#include "daemon/ctl/ctl.h"
#include "model/files/json.h"

/* Puts the members of the answer to text[0..size) into an open object. 0, or a code and said why: the answer
 * is {"error": …} instead. */
typedef int m2sed_ctl_answer(void *context, const char *text, size_t size, struct m2se_json_writer *writer,
                             struct m2se_error *error);

/* Answers the command line's text, or with --jsonl each line: one that is not such an object is answered
 * {"error": …}, and the rest goes on. Broken UTF-8 is read as U+FFFD, and a NUL (\u0000) is a character.
 * Returns the exit status: 0 even if lines were bad, for their answers say so. */
int m2sed_ctl_each_text(struct m2sed_ctl *ctl, m2sed_ctl_answer *answer, void *context);

#endif
