"""The Lua filter of the gateway: lets in who knows the token, and puts the endpoint's key first into the baggage. Pure text."""

from __future__ import annotations

import json

from sandlane.routing.key import MEMBER

TOKEN = "sandlane-preview-token"
"""Name of the cookie and of the query parameter; with `x-` before it, of the header."""

_GUARD = """
local token = TOKEN_VALUE
local function without(text, separator, name, joint)
  local kept, found = {}, nil
  for item in string.gmatch(text, "[^" .. separator .. "]+") do
    local trimmed = string.match(item, "^%s*(.-)%s*$")
    local key, value = string.match(trimmed, "^([^=]*)=(.*)$")
    if key == name then found = found or value else table.insert(kept, trimmed) end
  end
  return table.concat(kept, joint), found
end
local function same(given)
  if not given or #given ~= #token then return false end
  local different = 0
  for index = 1, #token do
    if string.byte(given, index) ~= string.byte(token, index) then different = different + 1 end
  end
  return different == 0
end
local function let_in(handle, headers)
  local known = same(headers:get("x-NAME"))
  headers:remove("x-NAME")
  local kept = {}
  for index = 0, headers:getNumValues("cookie") - 1 do
    local rest, found = without(headers:getAtIndex("cookie", index), ";", "NAME", "; ")
    known = known or same(found)
    if rest ~= "" then table.insert(kept, rest) end
  end
  if headers:getNumValues("cookie") > 0 then
    headers:remove("cookie")
    if #kept > 0 then headers:add("cookie", table.concat(kept, "; ")) end
  end
  local path, query = string.match(headers:get(":path") or "/", "^([^?]*)%??(.*)$")
  local rest, given = without(query, "&", "NAME", "&")
  if same(given) then
    if rest ~= "" then path = path .. "?" .. rest end
    path = string.gsub(path, "^/[/\\\\]+", "/")
    local cookie = "NAME=" .. token .. "; Path=/; HttpOnly; SameSite=Lax; Max-Age=604800SECURE"
    handle:respond({[":status"] = "302", ["location"] = path, ["set-cookie"] = cookie, ["cache-control"] = "no-store"}, "")
    return false
  end
  if known then return true end
  handle:respond({[":status"] = "401", ["content-type"] = "text/plain"},
    "this preview asks for a token: header x-NAME, or once ?NAME=... in the address\\n")
  return false
end
"""
_SOURCE = """
function envoy_on_request(handle)
  local headers = handle:headers()
LET_IN
  local key = handle:metadata():get("key")
  if not key then return end
  local members = {"MEMBER=" .. key}
  for index = 0, headers:getNumValues("baggage") - 1 do
    table.insert(members, headers:getAtIndex("baggage", index))
  end
  headers:remove("baggage")
  headers:add("baggage", table.concat(members, ","))
end
"""


def lua(token: str, *, secure: bool = False) -> str:
    """The filter's code; no token: everybody is let in. `secure`: browsers reach the gateway over HTTPS."""
    source = _SOURCE.replace("MEMBER", MEMBER)
    if not token:
        return source.replace("LET_IN", "")
    source = source.replace("LET_IN", "  if not let_in(handle, headers) then return end")
    guard = _GUARD.replace("NAME", TOKEN).replace("SECURE", "; Secure" if secure else "")
    return guard.replace("TOKEN_VALUE", json.dumps(token)) + source
