/* The Lua scripts, as the build embeds them from ingest/NAME.lua. */
#ifndef M2SE_LUA_H
#define M2SE_LUA_H

extern const char m2se_lua_lease[];
extern const char m2se_lua_marker[];
extern const char m2se_lua_marker_ask[];
extern const char m2se_lua_sequence[];
extern const char m2se_lua_publish_item[];

#endif
