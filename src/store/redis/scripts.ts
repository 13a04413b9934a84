const LOCK = `
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0`

/**
 * What must happen in one step. All keys of a script carry the same hash tag, so that they share a cluster slot. The
 * commands are those of Redis 6.0, because managed offers still run it (GETEX and GETDEL came with 6.2).
 * A script that client.ts lists as repeatable may run twice: a repetition after a lost answer must not fail.
 * ARGV holds only sealed texts, names and numbers, because tracing tools print it.
 */
export const SCRIPTS = {
  /** KEYS session tokens life about; ARGV idle ms. The ms it has left now, or nil. */
  slideSession: {
    numberOfKeys: 4,
    lua: `
local left = redis.call('PTTL', KEYS[3])
local ttl = tonumber(ARGV[1])
if left > 0 then ttl = math.min(ttl, left) end
if redis.call('PEXPIRE', KEYS[1], ttl) == 0 then return nil end
redis.call('PEXPIRE', KEYS[2], ttl)
redis.call('PEXPIRE', KEYS[4], ttl)
return ttl`,
  },
  /**
   * KEYS session life; ARGV record, idle ms, absolute ms or 0, names of its indexes. 1, or 0 when there is another of that
   * name. The second key lives for the absolute timeout by the clock of Redis, so that the clocks of the replicas do not
   * matter; it says under which names the session is noted.
   */
  createSession: {
    numberOfKeys: 2,
    lua: `
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  if ARGV[3] ~= '0' then redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[3]) end
  return 1
end
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0`,
  },
  /** KEYS session; ARGV channel, hash, record before, record. 1, or 0 when it has ended or is another. */
  replaceSession: {
    numberOfKeys: 1,
    lua: `
if redis.call('GET', KEYS[1]) ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[1], ARGV[4], 'XX', 'KEEPTTL')
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1`,
  },
  /** KEYS session about; ARGV text. 1, or 0 when the session has ended. */
  noteAbout: {
    numberOfKeys: 2,
    lua: `
local ttl = redis.call('PTTL', KEYS[1])
if ttl <= 0 then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ttl)
return 1`,
  },
  /** KEYS session tokens refresh-lock life about; ARGV channel, hash. The token fields it took, and the names of its indexes. */
  endSession: {
    numberOfKeys: 5,
    lua: `
local tokens = redis.call('HGETALL', KEYS[2])
local indexes = redis.call('GET', KEYS[4]) or ''
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return {tokens, indexes}`,
  },
  /**
   * KEYS sessions of a user; ARGV hash, ms that a session may live at most, or 0, ms since its sign-in. The score is the
   * sign-in by the clock of Redis, which also forgets what is older than any session; the set ends with the last session
   * that it may name.
   */
  indexUser: {
    numberOfKeys: 1,
    lua: `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local life = tonumber(ARGV[2])
local age = tonumber(ARGV[3])
redis.call('ZADD', KEYS[1], 'NX', now - age, ARGV[1])
if life > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - life)
  redis.call('PEXPIRE', KEYS[1], math.max(life - age, redis.call('PTTL', KEYS[1]), 1))
end
return 1`,
  },
  /** KEYS sessions of a user; ARGV indexes of the first and the last one, oldest first. The time of Redis in ms, and each with its score. */
  readUserIndex: {
    numberOfKeys: 1,
    lua: `
local time = redis.call('TIME')
return {time[1] * 1000 + math.floor(time[2] / 1000), redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[2], 'WITHSCORES')}`,
  },
  /** KEYS sessions of one session at the provider; ARGV as above. */
  indexIdpSession: {
    numberOfKeys: 1,
    lua: `
redis.call('SADD', KEYS[1], ARGV[1])
local life = tonumber(ARGV[2])
if life > 0 then
  redis.call('PEXPIRE', KEYS[1], math.max(life - tonumber(ARGV[3]), redis.call('PTTL', KEYS[1]), 1))
end
return 1`,
  },
  /**
   * KEYS sessions of a user; ARGV ms, hash, ... Forgets those that were noted longer ago than so many ms, and returns them,
   * with those that it does not name. The others may be about to be created.
   */
  forgetSessions: {
    numberOfKeys: 1,
    lua: `
local time = redis.call('TIME')
local before = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[1])
local gone = {}
for i = 2, #ARGV do
  local noted = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if not noted or tonumber(noted) <= before then
    redis.call('ZREM', KEYS[1], ARGV[i])
    gone[#gone + 1] = ARGV[i]
  end
end
return gone`,
  },
  /** KEYS tokens; ARGV field of an access token. Fields and values of the record, without the other access tokens. */
  readToken: {
    numberOfKeys: 1,
    lua: `
local found = {}
for _, field in ipairs({'v', 'rt', 'spend', ARGV[1]}) do
  local value = redis.call('HGET', KEYS[1], field)
  if value then
    found[#found + 1] = field
    found[#found + 1] = value
  end
end
return found`,
  },
  /** KEYS session tokens; ARGV field, value, ... 1, or 0 when the session has ended or has tokens. */
  createTokens: {
    numberOfKeys: 2,
    lua: `
local ttl = redis.call('PTTL', KEYS[1])
if ttl < 0 then return 0 end
if redis.call('EXISTS', KEYS[2]) == 1 then
  local done = redis.call('HGET', KEYS[2], 'v') == '1'
  for i = 1, #ARGV, 2 do
    done = done and redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1]
  end
  return done and #ARGV > 0 and 1 or 0
end
redis.call('HSET', KEYS[2], 'v', 1, unpack(ARGV))
redis.call('PEXPIRE', KEYS[2], math.max(ttl, 1))
return 1`,
  },
  /**
   * KEYS session tokens; ARGV channel, hash, expected version, field, value, ... An empty value removes its field.
   * A write whose answer was lost is repeated word for word: finding it done is success, not a conflict. `behind`: Redis
   * lacks the write before this one, which it had taken. Replicas are told of access tokens alone: the rest is in no copy.
   */
  writeTokens: {
    numberOfKeys: 2,
    lua: `
local ttl = redis.call('PTTL', KEYS[1])
if ttl < 0 then return 'gone' end
local version = tonumber(redis.call('HGET', KEYS[2], 'v') or nil)
local expected = tonumber(ARGV[3])
if version == expected + 1 and #ARGV > 3 then
  local done = true
  for i = 4, #ARGV, 2 do
    done = done and (redis.call('HGET', KEYS[2], ARGV[i]) or '') == ARGV[i + 1]
  end
  if done then return 'written' end
end
if version and version < expected then return 'behind' end
if version ~= expected then return 'superseded' end
redis.call('HSET', KEYS[2], 'v', expected + 1)
local copied = false
for i = 4, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[2], ARGV[i])
  else redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
  copied = copied or string.sub(ARGV[i], 1, 3) == 'at:'
end
redis.call('PEXPIRE', KEYS[2], math.max(ttl, 1))
if copied then redis.call('PUBLISH', ARGV[1], ARGV[2]) end
return 'written'`,
  },
  /** KEYS session tokens; ARGV channel, hash, field, value. 1, or 0 when the session has ended. */
  keepToken: {
    numberOfKeys: 2,
    lua: `
if redis.call('PTTL', KEYS[1]) < 0 or redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1`,
  },
  /** KEYS tokens; ARGV channel, hash. 1, or 0 when there is no refresh token to get others with. */
  forgetAllTokens: {
    numberOfKeys: 1,
    lua: `
if not redis.call('HGET', KEYS[1], 'rt') then return 0 end
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  if string.sub(fields[i], 1, 3) == 'at:' then redis.call('HDEL', KEYS[1], fields[i]) end
end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1`,
  },
  /**
   * KEYS one that never exists; ARGV channel, text. The write makes a server that is no primary, or may not write just
   * now, refuse: it would accept the PUBLISH alone.
   */
  heartbeat: {
    numberOfKeys: 1,
    lua: `
redis.call('UNLINK', KEYS[1])
return redis.call('PUBLISH', ARGV[1], ARGV[2])`,
  },
  /** KEYS lock; ARGV owner, ttl ms. 1, or 0 when another owner holds it. */
  lock: { numberOfKeys: 1, lua: LOCK },
  /** KEYS used; ARGV a name of the caller, ttl ms. first, pending while the key has the name of another, used when it has none. */
  firstUse: {
    numberOfKeys: 1,
    lua: `
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 'first' end
local name = redis.call('GET', KEYS[1])
if name == ARGV[1] then return 'first' end
return name == '' and 'used' or 'pending'`,
  },
  /** KEYS lock; ARGV owner. */
  unlock: {
    numberOfKeys: 1,
    lua: `
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`,
  },
  /** KEYS endings; ARGV life ms. The number of the last ending, which lives on, because the caller will compare with it. */
  lastEnding: {
    numberOfKeys: 1,
    lua: `
local last = redis.call('GET', KEYS[1])
if last then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return last or '0'`,
  },
  /** KEYS endings; ARGV life ms. The number of a new ending. */
  nextEnding: {
    numberOfKeys: 1,
    lua: `
local number = redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return number`,
  },
  /** KEYS ended; ARGV number, ttl ms. Two endings at once may come here in either order: the later one stays. */
  noteEnding: {
    numberOfKeys: 1,
    lua: `
local number = tonumber(ARGV[1])
local noted = tonumber(redis.call('GET', KEYS[1]) or '0')
redis.call('SET', KEYS[1], math.max(number, noted), 'PX', ARGV[2])
return 1`,
  },
  /** KEYS login. The record, gone from now on, or nil. */
  takeLogin: {
    numberOfKeys: 1,
    lua: `
local value = redis.call('GET', KEYS[1])
if value then redis.call('DEL', KEYS[1]) end
return value`,
  },
  /** KEYS count; ARGV window ms. Requests in this window, and the ms left of it. */
  countRequest: {
    numberOfKeys: 1,
    lua: `
local count = redis.call('INCR', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
  left = tonumber(ARGV[1])
  redis.call('PEXPIRE', KEYS[1], left)
end
return {count, left}`,
  },
} as const

/** Name of one script. */
export type ScriptName = keyof typeof SCRIPTS
