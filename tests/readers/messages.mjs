// What Node's and the browser's readers share: each message's data is parsed as JSON, whatever its name, and what a
// test asks for of it is reported, without its long texts.
const NAMES = ["id", "n", "note", "resume", "reason", "truncated", "type"];

/** Returns a function that takes the data of a message of this reader. */
export function taker(reader, report) {
  return (data) => {
    let message;
    try {
      message = JSON.parse(data);
    } catch (error) {
      report({ reader, error: `${error}: ${String(data).slice(0, 100)}` });
      return undefined;
    }
    const known = NAMES.filter((name) => name in message).map((name) => [name, message[name]]);
    report({ reader, message: { ...Object.fromEntries(known), length: data.length } });
    return message;
  };
}

/** Reports what comes from an object with the interface of an EventSource. */
export function follow(reader, source, report) {
  const take = taker(reader, report);
  source.onerror = () => {
    if (source.readyState === 2) report({ reader, closed: true });
  };
  for (const type of ["message", "gateway-open", "gateway-bookmark", "gateway-gap"]) {
    source.addEventListener(type, (message) => take(message.data));
  }
}
