/** Return the milliseconds of CPU that this process has used: other processes do not change it. */
export const cpuMs = (): number => process.cpuUsage().user / 1_000;
