/* Where the servers of a daemon with --embedded are, for programs beside it. */
#ifndef M2SED_CTL_EMBEDDED_H
#define M2SED_CTL_EMBEDDED_H

#include "daemon/config.h"

/* Sets kafka.brokers and redis.uri to what daemon.state_dir says. M2SE_EMISSING: no such daemon runs there.
 */
int m2sed_ctl_find_embedded(struct m2sed_config *config, struct m2se_error *error);

#endif
