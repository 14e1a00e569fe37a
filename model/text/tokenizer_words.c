/* Vocabularies and merges, from lines or from JSON. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "model/files/file.h"
#include "model/files/utf8.h"
#include "model/text/tokenizer_parts.h"
#include "model/text/unicode.h"

#define IDS_MAX (1u << 22) /* no vocabulary is that large; a wrong id must not cost gigabytes */
#define TOKEN_BYTES_MAX 1024
#define FILE_BYTES_MAX (32u << 20)

/* ---- Names of ids ---- */

/* Room for one more token of this size with this id. */
static int make_room(struct m2se_tokenizer *t, size_t size, uint32_t id) {
  if (id >= t->tokens_room) {
    uint32_t room = t->tokens_room ? t->tokens_room : 1024;
    while (room <= id) {
      room *= 2;
    }
    struct m2se_token *tokens = realloc(t->tokens, room * sizeof(tokens[0]));
    if (!tokens) {
      return M2SE_ENOMEM;
    }
    t->tokens = tokens;
    t->tokens_room = room;
  }
  if (t->texts_size + size + 1 > t->texts_room) {
    size_t room = 2 * (t->texts_room + TOKEN_BYTES_MAX + 1);
    char *texts = realloc(t->texts, room);
    if (!texts) {
      return M2SE_ENOMEM;
    }
    t->texts = texts;
    t->texts_room = room;
  }
  return 0;
}

int m2se_tokens_name(struct m2se_tokenizer *t, const char *text, size_t size, uint32_t id,
                     struct m2se_error *error) {
  if (size > TOKEN_BYTES_MAX || id >= IDS_MAX) {
    return m2se_error_set(error, M2SE_ELIMIT, "token \"%.40s\", id %u: longer than %d bytes, or not below %u",
                          text, id, TOKEN_BYTES_MAX, IDS_MAX);
  }
  int code = make_room(t, size, id);
  if (code) {
    return m2se_error_set(error, code, "no memory for a vocabulary of %u tokens", id + 1);
  }
  for (; t->ids <= id; t->ids++) {
    t->tokens[t->ids] = (struct m2se_token){SIZE_MAX, 0};
  }
  struct m2se_token *token = &t->tokens[id];
  if (token->begin != SIZE_MAX && token->size == size && memcmp(t->texts + token->begin, text, size) == 0) {
    return 0;
  }
  if (token->begin != SIZE_MAX) {
    return m2se_error_set(error, M2SE_EFORMAT, "id %u is both \"%.40s\" and \"%.40s\"", id,
                          t->texts + token->begin, text);
  }
  *token = (struct m2se_token){t->texts_size, (uint32_t)size};
  memcpy(t->texts + t->texts_size, text, size);
  t->texts[t->texts_size + size] = '\0';
  t->texts_size += size + 1;
  return 0;
}

int m2se_tokens_add_word(struct m2se_tokenizer *t, const char *text, size_t size, uint32_t id,
                         struct m2se_error *error) {
  int code = m2se_tokens_name(t, text, size, id, error);
  if (code) {
    return code;
  }
  code = size > 0 ? m2se_trie_add(&t->words, text, size, id) : 0;
  return code ? m2se_error_set(error, code, "token \"%.40s\": no room for it in the vocabulary", text) : 0;
}

/* ---- Lines ---- */

struct lines {
  char *text, *next, *end;
  uint32_t number; /* of the line returned last, from 1 */
};

/* The next line, NUL-terminated in place, or NULL at the end. A line of broken UTF-8 or with a NUL in it:
 * *code and the error say so. */
static char *next_line(struct lines *lines, const char *name, size_t *size, int *code,
                       struct m2se_error *error) {
  char *line = lines->next;
  if (*code || line >= lines->end) {
    return NULL;
  }
  char *stop = memchr(line, '\n', (size_t)(lines->end - line));
  stop = stop ? stop : lines->end;
  lines->next = stop + 1;
  lines->number++;
  *size = (size_t)(stop - line);
  *size -= *size > 0 && line[*size - 1] == '\r';
  if (!m2se_utf8_valid(line, *size) || memchr(line, '\0', *size)) {
    *code = m2se_error_set(error, M2SE_EFORMAT, "%s line %u: not UTF-8, or a NUL in it", name, lines->number);
    return NULL;
  }
  line[*size] = '\0';
  return line;
}

static int open_lines(struct lines *lines, const char *folder, const char *name, struct m2se_error *error) {
  size_t size = 0;
  int code = m2se_file_read(folder, name, FILE_BYTES_MAX, &lines->text, &size, error);
  lines->next = lines->text;
  lines->end = lines->text ? lines->text + size : NULL;
  lines->number = 0;
  return code;
}

int m2se_tokens_read_lines(struct m2se_tokenizer *t, const char *folder, struct m2se_error *error) {
  struct lines lines;
  int code = open_lines(&lines, folder, "vocab.txt", error);
  size_t size = 0;
  for (char *line; !code && (line = next_line(&lines, "vocab.txt", &size, &code, error)) != NULL;) {
    code = m2se_tokens_add_word(t, line, size, lines.number - 1, error);
    code = code ? m2se_error_prefix(error, code, "vocab.txt line %u", lines.number) : 0;
  }
  free(lines.text);
  return code;
}

/* ---- Merges ---- */

/* An empty table for so many merges, at most half full. */
static int make_merges(struct m2se_tokenizer *t, size_t count, struct m2se_error *error) {
  assert(!t->merges && count < IDS_MAX);
  t->merges_size = 16;
  while (t->merges_size < 2 * count) {
    t->merges_size *= 2;
  }
  t->merges = malloc(t->merges_size * sizeof(t->merges[0]));
  if (!t->merges) {
    t->merges_size = 0;
    return m2se_error_set(error, M2SE_ENOMEM, "no memory for %zu merges", count);
  }
  memset(t->merges, 0xFF, t->merges_size * sizeof(t->merges[0])); /* all free */
  return 0;
}

/* left and right become one token; a pair that came before gets the later rank, as in the reference. */
static int add_merge(struct m2se_tokenizer *t, const char *left, size_t left_size, const char *right,
                     size_t right_size, uint32_t rank, struct m2se_error *error) {
  char whole[2 * TOKEN_BYTES_MAX];
  if (left_size > TOKEN_BYTES_MAX || right_size > TOKEN_BYTES_MAX) {
    return m2se_error_set(error, M2SE_ELIMIT, "a token of more than %d bytes", TOKEN_BYTES_MAX);
  }
  memcpy(whole, left, left_size);
  memcpy(whole + left_size, right, right_size);
  uint32_t left_id = m2se_trie_find(&t->words, left, left_size);
  uint32_t right_id = m2se_trie_find(&t->words, right, right_size);
  uint32_t id = m2se_trie_find(&t->words, whole, left_size + right_size);
  if (left_id == M2SE_TRIE_NONE || right_id == M2SE_TRIE_NONE || id == M2SE_TRIE_NONE) {
    return m2se_error_set(error, M2SE_EMISSING,
                          "\"%.40s\" and \"%.40s\" are to become one: the vocabulary lacks one of the three",
                          left, right);
  }
  uint64_t pair = (uint64_t)left_id << 32 | right_id;
  uint32_t mask = t->merges_size - 1;
  uint32_t place = (uint32_t)((pair * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & mask;
  while (t->merges[place].pair != UINT64_MAX && t->merges[place].pair != pair) {
    place = (place + 1) & mask;
  }
  t->merges[place] = (struct m2se_merge){pair, rank, id};
  return 0;
}

/* "left right" */
static int add_merge_line(struct m2se_tokenizer *t, const char *line, size_t size, uint32_t rank,
                          struct m2se_error *error) {
  const char *blank = memchr(line, ' ', size);
  if (!blank || memchr(blank + 1, ' ', size - (size_t)(blank + 1 - line))) {
    return m2se_error_set(error, M2SE_EFORMAT, "not two tokens with one blank between them");
  }
  char left[TOKEN_BYTES_MAX + 1]; /* NUL-terminated for the error */
  size_t left_size = (size_t)(blank - line);
  if (left_size > TOKEN_BYTES_MAX) {
    return m2se_error_set(error, M2SE_ELIMIT, "a token of more than %d bytes", TOKEN_BYTES_MAX);
  }
  memcpy(left, line, left_size);
  left[left_size] = '\0';
  return add_merge(t, left, left_size, blank + 1, size - left_size - 1, rank, error);
}

int m2se_merges_read_lines(struct m2se_tokenizer *t, const char *folder, struct m2se_error *error) {
  static const char name[] = "merges.txt";
  struct lines lines;
  int code = open_lines(&lines, folder, name, error);
  size_t size = 0, count = 0;
  for (const char *p = lines.text; p && p < lines.end; p++) {
    count += *p == '\n';
  }
  code = code ? code : make_merges(t, count + 1, error);
  uint32_t rank = 0;
  for (char *line; !code && (line = next_line(&lines, name, &size, &code, error)) != NULL;) {
    if (size == 0 || strncmp(line, "#version", strlen("#version")) == 0) {
      continue;
    }
    code = add_merge_line(t, line, size, rank++, error);
    code = code ? m2se_error_prefix(error, code, "%s line %u", name, lines.number) : 0;
  }
  free(lines.text);
  return code;
}

static int add_merge_json(struct m2se_tokenizer *t, const struct m2se_json *merge, uint32_t rank,
                          struct m2se_error *error) {
  const char *left = NULL, *right = NULL;
  size_t left_size = 0, right_size = 0;
  if (m2se_json_type(merge) == M2SE_JSON_STRING) {
    int code = m2se_json_as_string(merge, "merge", &left, &left_size, error);
    return code ? code : add_merge_line(t, left, left_size, rank, error);
  }
  int code = m2se_json_as_string(m2se_json_at(merge, 0), "its first token", &left, &left_size, error);
  code = code ? code
              : m2se_json_as_string(m2se_json_at(merge, 1), "its second token", &right, &right_size, error);
  return code ? code : add_merge(t, left, left_size, right, right_size, rank, error);
}

int m2se_merges_read_array(struct m2se_tokenizer *t, const struct m2se_json *merges,
                           struct m2se_error *error) {
  size_t count = 0;
  int code = m2se_json_as_array(merges, "model.merges", &count, error);
  code = code ? code : make_merges(t, count, error);
  for (size_t i = 0; i < count && !code; i++) {
    code = add_merge_json(t, m2se_json_at(merges, i), (uint32_t)i, error);
    code = code ? m2se_error_prefix(error, code, "model.merges[%zu]", i) : 0;
  }
  return code;
}

/* ---- JSON ---- */

int m2se_tokens_read_object(struct m2se_tokenizer *t, const struct m2se_json *vocabulary,
                            struct m2se_error *error) {
  int code = m2se_json_as_object(vocabulary, "vocabulary", error);
  struct m2se_json_iterator member = {0};
  while (!code && m2se_json_next(vocabulary, &member)) {
    uint64_t id = 0;
    code = m2se_json_as_uint64(member.value, "id", &id, error);
    id = id < IDS_MAX ? id : IDS_MAX; /* refused below */
    code = code ? m2se_error_prefix(error, code, "token \"%.40s\"", member.key)
                : m2se_tokens_add_word(t, member.key, member.key_length, (uint32_t)id, error);
  }
  return code;
}

void m2se_tokens_find_bytes(struct m2se_tokenizer *t) {
  for (uint32_t byte = 0; byte < 256; byte++) {
    char text[4 + sizeof("</w>")];
    size_t size = m2se_unicode_encode(m2se_bpe_byte_character((uint8_t)byte), text);
    memcpy(text + size, "</w>", sizeof("</w>"));
    t->byte_ids[0][byte] = m2se_trie_find(&t->words, text, size);
    t->byte_ids[1][byte] = m2se_trie_find(&t->words, text, size + 4);
  }
}
