/* Status for people: a panel of about twenty lines, and one line for logs. Pure. */
#ifndef M2SED_CTL_STATUS_VIEW_H
#define M2SED_CTL_STATUS_VIEW_H

#include "daemon/text.h"
#include "ingest/codec_status.h"

enum { M2SED_STATUS_SECONDS = 60, M2SED_STATUS_STALE_MS = 5000 };

/* What a watch has seen: one value a second, oldest first. */
struct m2sed_status_history {
  double events_per_second[M2SED_STATUS_SECONDS], hr10[M2SED_STATUS_SECONDS];
  uint32_t count;
};
void m2sed_status_remember(struct m2sed_status_history *history, const struct m2se_status *status);

struct m2sed_status_view {
  const struct m2se_status *status;
  int64_t now_ms;
  bool exclude_seen;                          /* as serve.exclude_seen: which of the metrics count */
  const struct m2sed_status_history *history; /* NULL: none */
};
/* It was written so long ago that the daemon does not run, or is stuck. */
bool m2sed_status_is_stale(const struct m2se_status *status, int64_t now_ms);
void m2sed_status_add_panel(struct m2sed_text *text, const struct m2sed_status_view *view);
/* Without the end of the line. */
void m2sed_status_add_line(struct m2sed_text *text, const struct m2sed_status_view *view);

/* Cuts a panel to what a terminal shows: at most so many lines of so many characters, each end cleared with
 * the terminal's own code so that a shorter line leaves nothing of the one before. */
void m2sed_status_fit(struct m2sed_text *out, const struct m2sed_text *panel, uint32_t lines,
                      uint32_t columns);

#endif
