/** The pattern of what is not known. */

export function HatchPattern({ id = "hatch" }: { readonly id?: string }) {
  return (
    <defs>
      <pattern id={id} width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
        <rect class="hatch" width="2.5" height="6" />
      </pattern>
    </defs>
  );
}
