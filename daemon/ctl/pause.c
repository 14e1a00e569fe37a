/* m2sectl pause, resume: the file that the daemon looks for once a second. */
#include "daemon/pause.h"

#include <pwd.h>
#include <stdio.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "daemon/ctl/ctl.h"

static int say(const char *line) {
  struct m2sed_text text = {0};
  m2sed_text_add(&text, "%s\n", line);
  int status = m2sed_ctl_show(&text);
  m2sed_text_free(&text);
  return status;
}

int m2sed_ctl_pause(struct m2sed_ctl *ctl) {
  char note[M2SED_PAUSE_BYTES_MAX], host[65] = "?", time_text[32];
  const struct passwd *who = getpwuid(getuid());
  const char *why = ctl->argument_count ? ctl->arguments[0] : "";
  time_t now = time(NULL);
  struct tm utc;
  gethostname(host, sizeof host - 1);
  strftime(time_text, sizeof time_text, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
  snprintf(note, sizeof note, "%s on %s at %s%s%s", who ? who->pw_name : "somebody", host, time_text,
           why[0] ? ": " : "", why);
  struct m2se_error error = {0};
  if (m2sed_pause_set(ctl->config.checkpoint_dir, note, &error))
    return m2sed_ctl_fail_error(&error);
  return say("The daemon takes no more interactions, in a second at most, and after a restart too, until "
             "m2sectl resume.");
}

int m2sed_ctl_resume(struct m2sed_ctl *ctl) {
  struct m2se_error error = {0};
  if (m2sed_pause_clear(ctl->config.checkpoint_dir, &error))
    return m2sed_ctl_fail_error(&error);
  return say("The daemon goes on, in a second at most.");
}
