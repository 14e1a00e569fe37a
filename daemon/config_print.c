#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config_setting.h"

enum { WIDTH = 110 };

/* A stream into memory; its failure is memory, and shows at the end. */
static void put_wrapped(FILE *out, const char *indent, const char *text) {
  while (*text) {
    size_t room = WIDTH - strlen(indent) - 2, size = strlen(text);
    if (size > room) {
      size = room;
      while (size > 1 && text[size] != ' ')
        size--;
    }
    fwrite(indent, 1, strlen(indent), out);
    fwrite("# ", 1, 2, out);
    fwrite(text, 1, size, out);
    fputc('\n', out);
    text += size;
    text += strspn(text, " ");
  }
}

/* The next character between quotes; returns its bytes. What ends a line for YAML must not stand there as it
 * is: it would be read as a blank. */
static size_t put_quoted(FILE *out, const char *text) {
  static const struct {
    const char *bytes, *escape;
  } breaks[] = {{"\xc2\x85", "\\N"}, {"\xe2\x80\xa8", "\\L"}, {"\xe2\x80\xa9", "\\P"}};
  for (size_t i = 0; i < sizeof breaks / sizeof breaks[0]; i++)
    if (!strncmp(text, breaks[i].bytes, strlen(breaks[i].bytes))) {
      fputs(breaks[i].escape, out);
      return strlen(breaks[i].bytes);
    }
  if ((unsigned char)*text < ' ' || *text == 0x7f) {
    char escape[8];
    snprintf(escape, sizeof escape, "\\x%02x", (unsigned)(unsigned char)*text);
    fputs(escape, out);
    return 1;
  }
  if (*text == '"' || *text == '\\')
    fputc('\\', out);
  fputc(*text, out);
  return 1;
}

/* Plain where YAML and we read it back as it is, else between quotes. */
static void put_text(FILE *out, const char *text) {
  static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";
  if (*text && *text != '-' && strspn(text, plain) == strlen(text)) {
    fputs(text, out);
    return;
  }
  fputc('"', out);
  while (*text)
    text += put_quoted(out, text);
  fputc('"', out);
}

static void put_number(FILE *out, double number) {
  char text[40];
  /* The shortest form that reads back as the same number. */
  for (int digits = 1; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, number);
    if (strtod(text, NULL) == number)
      break;
  }
  if (strchr(text, 'e') && number == (double)(int64_t)number && number < 1e15 && number > -1e15)
    snprintf(text, sizeof text, "%.0f", number);
  fputs(text, out);
}

static void put_word(FILE *out, const char *words, uint32_t number) {
  for (; number; number--)
    words += strcspn(words, "|") + 1;
  fwrite(words, 1, strcspn(words, "|"), out);
}

static void put_value(FILE *out, const struct m2sed_config *config, const struct m2sed_setting *setting) {
  const void *field = (const char *)config + setting->offset;
  char text[32];
  switch (setting->kind) {
  case M2SED_KIND_TEXT:
    put_text(out, field);
    break;
  case M2SED_KIND_COUNT:
    snprintf(text, sizeof text, "%llu", (unsigned long long)*(const uint64_t *)field);
    fputs(text, out);
    break;
  case M2SED_KIND_REAL:
    put_number(out, *(const double *)field);
    break;
  case M2SED_KIND_SWITCH:
    fputs(*(const bool *)field ? "true" : "false", out);
    break;
  case M2SED_KIND_CHOICE:
    put_word(out, setting->words, *(const uint32_t *)field);
    break;
  }
}

static void put_rules(FILE *out, const struct m2sed_setting *setting) {
  char text[1024];
  int used = snprintf(text, sizeof text, "%s", setting->help);
  if (setting->kind == M2SED_KIND_COUNT || setting->kind == M2SED_KIND_REAL)
    snprintf(text + used, sizeof text - (size_t)used, " (%.15g to %.15g)", setting->min, setting->max);
  if (setting->kind == M2SED_KIND_CHOICE)
    snprintf(text + used, sizeof text - (size_t)used, " (%s)", setting->words);
  put_wrapped(out, "  ", text);
}

static void put_properties(FILE *out, const struct m2sed_config *config) {
  put_wrapped(out, "  ", "Any property of librdkafka, one a line: \"NAME: VALUE\".");
  fputs(config->kafka_property_count ? "  properties:\n" : "  properties: {}\n", out);
  for (uint32_t i = 0; i < config->kafka_property_count; i++) {
    fputs("    ", out);
    put_text(out, config->kafka_properties[i].name);
    fputs(": ", out);
    put_text(out, config->kafka_properties[i].value);
    fputc('\n', out);
  }
}

char *m2sed_config_print(const struct m2sed_config *config) {
  char *text = NULL;
  size_t size = 0;
  FILE *out = open_memstream(&text, &size);
  if (!out)
    return NULL;
  put_wrapped(out, "",
              "Settings of m2sed. What is left out has the value shown here by 'm2sed --print-config'; each "
              "can also be "
              "given in the environment as M2SED_SECTION_KEY.");
  const char *section = "";
  for (uint32_t i = 0; i < m2sed_setting_count; i++) {
    const struct m2sed_setting *setting = &m2sed_settings[i];
    if (strcmp(section, setting->section)) {
      if (!strcmp(section, "kafka"))
        put_properties(out, config);
      section = setting->section;
      fputc('\n', out);
      fputs(section, out);
      fputs(":\n", out);
    }
    put_rules(out, setting);
    fputs("  ", out);
    fputs(setting->key, out);
    fputs(": ", out);
    put_value(out, config, setting);
    fputc('\n', out);
  }
  bool failed = ferror(out) != 0;
  failed |= fclose(out) != 0;
  if (failed) {
    free(text);
    return NULL;
  }
  return text;
}
