/* m2sectl rollback: the daemon goes on from an older generation. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/checkpoint.h"
#include "daemon/ctl/ctl.h"
#include "daemon/lock.h"

static int roll_back(const char *dir, uint64_t generation) {
  struct m2se_error error = {0};
  uint64_t copy;
  if (m2sed_checkpoint_roll_back(dir, generation, &copy, &error))
    return error.code == M2SE_EINVAL ? m2sed_ctl_fail(EX_USAGE, "%s", error.text)
                                     : m2sed_ctl_fail_error(&error);
  struct m2sed_text text = {0};
  m2sed_text_add(&text, "generation %" PRIu64 " is the newest now, as generation %" PRIu64 "; ", generation,
                 copy);
  m2sed_text_add(&text, "those after it are kept as undone-gen-* in %s until you remove them\n", dir);
  int status = m2sed_ctl_show(&text);
  m2sed_text_free(&text);
  return status;
}

int m2sed_ctl_rollback(struct m2sed_ctl *ctl) {
  const char *dir = ctl->config.checkpoint_dir, *name = ctl->arguments[0];
  const char *digits = strncmp(name, "gen-", 4) == 0 ? name + 4 : name;
  if (!digits[0] || digits[strspn(digits, "0123456789")] || strlen(digits) > 18)
    return m2sed_ctl_fail(EX_USAGE, "'%.80s' is not the number of a generation", name);
  if (!m2sed_ctl_has(ctl, M2SED_CTL_YES))
    return m2sed_ctl_fail(
        EX_USAGE,
        "what was learned after generation %s will be forgotten, and its events learned once "
        "more by the older weights; if that is what you want: --yes",
        digits);
  struct m2sed_lock lock;
  struct m2se_error error = {0};
  if (m2sed_lock_take(&lock, dir, false, &error))
    return m2sed_ctl_fail(EX_UNAVAILABLE, "%s; stop the daemon first", error.text);
  int status = roll_back(dir, strtoull(digits, NULL, 10));
  m2sed_lock_release(&lock);
  return status;
}
